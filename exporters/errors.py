"""Errors of the exporters."""

from profiles.errors import ToolError


class ExportError(ToolError):
    """A model could not be exported, or the exported file does not compute what the model computes."""
