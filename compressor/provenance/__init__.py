"""Where a run came from: what went in, what it was made with, and what every file of it is."""
