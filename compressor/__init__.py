"""From a private vision teacher and a few images to a small, measured student on an edge device."""

__version__ = "0.1.0"
