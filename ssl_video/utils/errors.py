"""What the framework tells apart: input to be refused, a run that was ended, a video that cannot be read."""


class InputError(ValueError):
    """Something the user gave cannot be used; the run is refused before its first step (exit code 2).

    The message gives the value, the rule it breaks and the way out.
    """


class Terminated(RuntimeError):
    """SIGTERM ended the run between two steps and nobody starts it again (exit code 143)."""


class UnreadableVideo(RuntimeError):
    """A video file could not be opened or decoded; the message is the reason."""
