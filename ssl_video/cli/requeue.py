"""Who starts a job again that was ended: submitit where it started the job, else SLURM, asked once; else nobody."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from typing import Any, Literal

from ssl_video.callbacks.stop_signals import StopSignals
from ssl_video.utils.errors import Preempted, Terminated
from ssl_video.utils.run import job_id

Requeue = Literal["auto"] | bool
SECONDS_TO_ANSWER = 60


def end_stopped(stop: StopSignals, *, requeue: Requeue) -> None:
    """Ends the first process of a run that was stopped, after everything it had to write is written.

    Args:
        stop: knows why.
        requeue: whether somebody may start the job again; ``True`` says so where nobody does.

    Raises:
        KeyboardInterrupt: by Ctrl-C.
        Preempted: the job starts again.
        Terminated: it does not.
        SystemExit: submitit starts it again.
    """
    if stop.reason == "SIGINT":
        raise KeyboardInterrupt
    reason = f"Ended by {stop.reason}"
    if requeue is False:
        raise Terminated(f"{reason}; requeue=false.")
    job = job_id()
    if stop.reason == "SIGTERM" and (job is None or is_cancelled(job)):
        raise Terminated(f"{reason}.")
    if stop.reason == "SIGTERM" and job is not None and is_requeued(job):
        raise Preempted(f"{reason}; SLURM starts job {job} again.")
    handler = submitit_handler(stop.previous)
    if handler is not None:
        raise Terminated(f"{reason}; {_hand_over(handler, str(stop.reason))}")
    if job is None:
        raise Terminated(f"{reason}" + ("; requeue=true, but this is no job of SLURM." if requeue is True else "."))
    refusal = _requeue(job)
    if refusal is not None:
        raise Terminated(f"{reason}; SLURM does not requeue job {job}: {refusal}")
    raise Preempted(f"{reason}; job {job} is requeued.")


def submitit_handler(handlers: Mapping[signal.Signals, Any]) -> Any:
    """The handler by which submitit requeues a job that it started, None where it started none.

    It has one signal for that, SIGUSR2 by default; on SIGTERM it does nothing.
    """
    for handler in handlers.values():
        owner = getattr(handler, "__self__", None)
        if type(owner).__module__.startswith("submitit.") and handler.__name__ == "checkpoint_and_try_requeue":
            return handler
    return None


def _hand_over(handler: Any, reason: str) -> str:
    """Lets submitit requeue the job and end the process; returns why it did not."""
    try:
        handler(signal.Signals[reason] if reason.startswith("SIG") else signal.SIGUSR2, None)
    except Exception as fault:  # of a class of its own, where the job has been requeued too often
        return str(fault)
    return "submitit did not requeue the job."


def is_cancelled(job: str) -> bool:
    """Whether a job ends because somebody wants it to, so that it must not start again.

    SLURM sends SIGTERM for that too, beside preemption and the end of the job's time. It does not say that a job is
    cancelled as long as its processes end: then it is COMPLETING, whatever the cause.
    """
    told = _told_of(job)
    if told.get("JobState") == "COMPLETING":
        return told.get("Reason") != "TimeLimit" and not is_requeued(job)
    return told.get("JobState") in (None, "CANCELLED")


def is_requeued(job: str) -> bool:
    """Whether SLURM has already counted another start of a job, which it ended for that."""
    return int(_told_of(job).get("Restarts", "0")) > int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def _told_of(job: str) -> dict[str, str]:
    """What SLURM tells of a job, nothing where it doesn't."""
    told = _ask("scontrol", "--oneliner", "show", "job", job)
    return {} if isinstance(told, str) else dict(re.findall(r"\b(JobState|Reason|Restarts)=(\w+)", told.stdout))


def _requeue(job: str) -> str | None:
    """Asks SLURM to start a job again; returns why it does not."""
    told = _ask("scontrol", "requeue", job)
    if isinstance(told, str):
        return told
    return None if told.returncode == 0 else (told.stderr.strip() or f"exit code {told.returncode}")


def _ask(*command: str) -> subprocess.CompletedProcess[str] | str:
    """What a command answers, or why there is no answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False)
    except (OSError, subprocess.TimeoutExpired) as fault:
        return str(fault)
