"""The one shape of every error that a user can cause: what came, what was expected, what to do."""


class ToolError(Exception):
    """A refusal in three sentences. The command line prints it without a traceback.

    Args:
        received: what happened, with the value that came.
        expected: what was expected, or what is available.
        action: what the user can do now.
    """

    def __init__(self, received: str, expected: str, action: str) -> None:
        super().__init__(f"{received} {expected} {action}")
        self.received = received
        self.expected = expected
        self.action = action


class ProfileError(ToolError):
    """A device profile is unknown, unreadable or wrong."""
