"""A job of a local sweep that needs several processes gets one command of its own, which starts the others.

In the sweep's own process the first job would start the other ranks and stay joined to them: a second job could not
start its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

import ssl_video
from ssl_video.cli.outcomes import Outcome, forget_outcome, read_outcome, write_outcome
from ssl_video.cli.strategies import num_processes
from ssl_video.utils.run import Job

# Says of which sweep a command is a job.
_VARIABLE = "SSL_VIDEO_SWEEP_JOB"
_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def needs_own_process(config: DictConfig) -> bool:
    """Whether a job's other processes are still to be started, by this one."""
    return num_processes(config) > 1 and not config.get("launcher") and "LOCAL_RANK" not in os.environ


def place_in_sweep(job: Job) -> Job:
    """The job with its place in the sweep, where another command started it as one of its jobs."""
    if _VARIABLE not in os.environ:
        return job
    place = json.loads(os.environ[_VARIABLE])
    return replace(job, sweep_dir=Path(place["sweep_dir"]), number=place["number"])


def run_in_own_process(config_name: str, job: Job, config_dirs: Sequence[str]) -> Outcome:
    """Runs a job of a sweep as a command and returns how it ended; signals reach it."""
    assert job.sweep_dir is not None
    forget_outcome(job.sweep_dir, job.number)
    flags = [text for folder in config_dirs for text in ("--config-dir", folder)]
    command = [sys.executable, "-m", "ssl_video.cli.main", config_name, *flags, *job.overrides]
    place = json.dumps({"sweep_dir": str(job.sweep_dir), "number": job.number})
    process = subprocess.Popen(command, env={**os.environ, **checkout_on_path(), _VARIABLE: place})
    with _signals_for(process):
        code = process.wait()
    outcome = read_outcome(job.sweep_dir, job.number)
    if outcome is None:
        outcome = Outcome(job.number, job.overrides, code=code or 1, reason=f"ended by {_cause(code)} without a word")
        write_outcome(job.sweep_dir, outcome)
    return outcome


def checkout_on_path() -> dict[str, str]:
    """``PYTHONPATH`` for a process that finds the package where this one did: a checkout need not be installed."""
    root = Path(ssl_video.__file__).resolve().parent.parent
    if not (root / "train.py").is_file():
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))}


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@contextmanager
def _signals_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """What this process is asked, the other one does. Ctrl-C reaches both, and this one waits until it is obeyed."""

    def pass_on(number: int, frame: Any) -> None:
        process.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    previous[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
