"""The signals by which a terminal, a user or a cluster ends a run."""

from __future__ import annotations

import signal

ENDINGS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")


def ignore_endings() -> None:
    """Leaves them to the process that this one works for, and that ends it when it is done with the step.

    A terminal sends them to a whole group of processes, a cluster to all of a job, and a worker that is gone costs its
    run the step, and the video that it was reading its good name.
    """
    for name in ENDINGS:
        signal.signal(signal.Signals[name], signal.SIG_IGN)
