"""The two faults that the framework tells apart: input that must be refused, and a video that cannot be read."""


class InputError(ValueError):
    """Something the user gave cannot be used; the run is refused before its first step (exit code 2).

    The message gives the value, the rule it breaks and the way out.
    """


class UnreadableVideo(RuntimeError):
    """A video file could not be opened or decoded; the message is the reason."""
