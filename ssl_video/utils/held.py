"""A run's folder is held by the process that trains in it, so that no other one goes on with it at the same time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_video.utils.errors import InputError

LOCK = ".lock"


@contextmanager
def held(folder: Path, *, insist: bool) -> Iterator[None]:
    """Holds a run's folder until the block, or the process, ends.

    By a record lock, which children do not inherit: a loading worker that outlives a killed run holds nothing. Where a
    file system has no locks, nothing is held.

    Args:
        folder: of the run; it is made.
        insist: whether to refuse a folder that is held. A job that starts again does not: the machine it has lost may
            seem to hold it for a while.

    Raises:
        InputError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # systems differ in what they say
            if insist:
                raise InputError(
                    f"{folder} is being trained in by another process; wait for its end, or begin another run by "
                    "run_dir=DIR without resume=."
                ) from None
        except OSError:
            pass
        yield
