"""What the user hands in: a teacher in an unknown file and a few real images. Read and checked, never run."""
