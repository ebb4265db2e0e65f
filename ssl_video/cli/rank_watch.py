"""A run of several processes ends when one of them does, soon, and with that one's reason.

Torch's elastic agent (``torchrun``) ends all processes when one fails, and so does ``srun --kill-on-bad-exit``.
Lightning, where it starts the processes itself, kills all including the first one by SIGKILL: no word, and exit code
137 instead of 1. Where the first process is killed, the others notice at their next collective, which on a GPU may
never return. gloo notices a lost connection, but says so by a traceback that buries that of the process that failed.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import lightning_fabric.strategies.launchers.subprocess_script as fabric_launcher
import pytorch_lightning.strategies.launchers.subprocess_script as trainer_launcher
import torch.distributed as dist

from ssl_video.callbacks.stop_signals import Stopped
from ssl_video.utils.distributed import rank
from ssl_video.utils.errors import Preempted, RunFault, Terminated

LIGHTNINGS_OBSERVER = "_launch_process_observer"
POLL_SECONDS = 0.5
# A process that notices by itself ends by itself, with its files and loggers closed; one that hangs is ended.
GRACE_SECONDS = 30.0
# How long the first process waits for what another one, whose connection it lost, ends with.
REASON_SECONDS = 10.0
# How long it waits for what the others say of a fault that all of them met; they may be waiting for it for ever.
LAST_WORDS_SECONDS = 5.0
AS_ASKED = (0, 130, 143)  # done, interrupted, terminated: the first process is about to end likewise

_children: list[subprocess.Popen[bytes]] = []


@functools.cache
def watch_processes() -> None:
    """Lets the processes of this machine watch each other, where Lightning starts them; call it before it does."""
    for launcher in (fabric_launcher, trainer_launcher):
        if not hasattr(launcher, LIGHTNINGS_OBSERVER):
            raise RuntimeError(f"This Lightning has no {launcher.__name__}.{LIGHTNINGS_OBSERVER} to be replaced.")
        setattr(launcher, LIGHTNINGS_OBSERVER, _watch_children)
    # Lightning gives the first process a LOCAL_RANK too: who started that one may leave.
    if int(os.environ.get("LOCAL_RANK", "0")) > 0 and not dist.is_torchelastic_launched():
        parent = os.getppid()
        reason = f"Rank {os.environ['LOCAL_RANK']}: the first process has gone."
        _watch(lambda: reason if os.getppid() != parent else None)


@contextmanager
def ended_together() -> Iterator[None]:
    """Within it, what another process's end does to this one is told as that, in one line.

    Raises:
        RunFault: in place of a broken connection.
    """
    try:
        yield
    except (Stopped, Terminated, Preempted):
        raise
    except Exception as fault:
        reason = None
        if _is_lost_connection(fault):
            said = str(fault).splitlines()[0].split(". ")[0]
            reason = f"Rank {rank()}: the connection to another process broke, which has ended ({said})."
            reason = _reason_of_a_child(seconds=REASON_SECONDS) or reason
        _end_children(seconds=LAST_WORDS_SECONDS)
        if reason is None:
            raise
        raise RunFault(reason) from None


def _is_lost_connection(fault: BaseException) -> bool:
    return isinstance(fault, dist.DistError) or (isinstance(fault, RuntimeError) and "gloo/transport" in str(fault))


def _watch_children(child_processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """In place of Lightning's observer."""
    _children[:] = child_processes
    _watch(_failed_child)


def _failed_child() -> str | None:
    """Which child ended before its time, and how."""
    for number, child in enumerate(_children, start=1):
        code = child.poll()
        if code is not None and code not in AS_ASKED:
            return f"Rank {number} (process {child.pid}) {_in_words(code)}."
    return None


def _in_words(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}; what it said of it stands above"
    name = signal.Signals(-code).name
    return f"was ended by {name}" + (" (perhaps the machine ran out of memory)" if name == "SIGKILL" else "")


def _watch(failure: Callable[[], str | None]) -> None:
    """Ends this process some time after ``failure`` gives a reason, unless it has ended by then."""

    def watch() -> None:
        while (reason := failure()) is None:
            time.sleep(POLL_SECONDS)
        time.sleep(GRACE_SECONDS)
        print(f"{reason} The other processes are ended with it.", file=sys.stderr, flush=True)
        _end_children(seconds=0)
        os._exit(1)

    threading.Thread(target=watch, name="rank watch", daemon=True).start()


def _reason_of_a_child(*, seconds: float) -> str | None:
    """Waits for the child whose connection was lost; None where there is none."""
    deadline = time.monotonic() + seconds
    while _children and time.monotonic() < deadline:
        if (reason := _failed_child()) is not None:
            return reason
        time.sleep(0.1)
    return None


def _end_children(*, seconds: float) -> None:
    """Kills the children that don't end by themselves."""
    deadline = time.monotonic() + seconds
    while any(child.poll() is None for child in _children) and time.monotonic() < deadline:
        time.sleep(0.1)
    for child in _children:
        if child.poll() is None:
            child.kill()
