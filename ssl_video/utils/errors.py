"""What the framework tells apart: input to be refused, a run that was ended, a video that cannot be read."""


class InputError(ValueError):
    """Something the user gave cannot be used; the run is refused before its first step (exit code 2).

    The message gives the value, the rule it breaks and the way out.
    """


class Terminated(RuntimeError):
    """A signal or the time limit ended the run between two steps and nobody starts it again (exit code 143)."""


class Preempted(RuntimeError):
    """The run was ended between two steps, its checkpoint is written, and the job starts again by itself (code 0)."""


class RunFault(RuntimeError):
    """The run cannot go on (exit code 1), and the message says all: no traceback is shown, and nothing if it is empty.

    It is empty on ranks that end because another one told the reason.
    """


class UnreadableVideo(RuntimeError):
    """A video file could not be opened or decoded; the message is the reason."""
