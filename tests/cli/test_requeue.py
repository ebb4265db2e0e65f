"""Exactly one starts an ended job again, or nobody does and the exit code says so."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssl_video.cli.requeue import end_stopped, is_cancelled, submitit_handler
from ssl_video.utils.errors import Preempted, Terminated


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A job of SLURM, whose ``scontrol`` writes down what it is asked; returns the asked and sets state and code."""

    def start(state: str = "RUNNING", code: int = 0) -> Path:
        asked = tmp_path / "asked"
        script = tmp_path / "scontrol"
        script.write_text(
            f"#!{sys.executable}\nimport sys\nopen({str(asked)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
            f"print('JobId=7 JobName=x JobState={state}')\n"
            f"if 'requeue' in sys.argv and {code}:\n    print('disabled', file=sys.stderr)\n    sys.exit({code})\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        return asked

    return start


def stopped(reason: str, **previous: Any) -> Any:
    return SimpleNamespace(reason=reason, previous={signal.Signals[name]: value for name, value in previous.items()})


def test_outside_a_scheduler_nobody_does() -> None:
    for reason in ("SIGTERM", "SIGUSR1", "SIGUSR2", "the time limit"):
        with pytest.raises(Terminated, match=f"Ended by {reason}"):
            end_stopped(stopped(reason), requeue="auto")
    with pytest.raises(Terminated, match="requeue=true, but this is no job of SLURM"):
        end_stopped(stopped("SIGUSR1"), requeue=True)


def test_ctrl_c_is_no_preemption(slurm: Any) -> None:
    asked = slurm()
    with pytest.raises(KeyboardInterrupt):
        end_stopped(stopped("SIGINT"), requeue=True)
    assert not asked.exists()


@pytest.mark.parametrize("reason", ["SIGUSR1", "SIGUSR2", "the time limit", "SIGTERM"])
def test_slurm_is_asked_once(slurm: Any, reason: str) -> None:
    asked = slurm()
    with pytest.raises(Preempted, match="job 7 is requeued"):
        end_stopped(stopped(reason), requeue="auto")
    assert asked.read_text().count("requeue 7") == 1


def test_an_array_is_requeued_by_its_own_task(slurm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = slurm()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    with pytest.raises(Preempted):
        end_stopped(stopped("SIGUSR1"), requeue="auto")
    assert asked.read_text() == "requeue 5_2\n"


def test_a_job_that_somebody_cancels_does_not_come_back(slurm: Any) -> None:
    asked = slurm("CANCELLED")
    with pytest.raises(Terminated):
        end_stopped(stopped("SIGTERM"), requeue="auto")
    assert "requeue" not in asked.read_text()
    assert is_cancelled("7")


@pytest.mark.parametrize(("told", "is_end"), [("", True), ("Reason=TimeLimit", False), ("Restarts=1", False)])
def test_what_is_completing_may_be_cancelled_or_out_of_time_or_requeued(slurm: Any, told: str, is_end: bool) -> None:
    """As a real SLURM tells it while a job's processes end."""
    asked = slurm(f"COMPLETING {told}")
    assert is_cancelled("7") == is_end
    with pytest.raises(Terminated if is_end else Preempted):
        end_stopped(stopped("SIGTERM"), requeue="auto")
    # What SLURM requeues by itself is not asked for again.
    assert ("requeue 7" in asked.read_text()) == (told == "Reason=TimeLimit")


def test_requeue_false_asks_nobody(slurm: Any) -> None:
    asked = slurm()
    handler = Handler()
    with pytest.raises(Terminated, match="requeue=false"):
        end_stopped(stopped("SIGUSR2", SIGUSR2=handler.checkpoint_and_try_requeue), requeue=False)
    assert not asked.exists() and not handler.calls


def test_a_job_that_may_not_be_requeued_says_so(slurm: Any) -> None:
    slurm(code=1)
    with pytest.raises(Terminated, match="SLURM does not requeue job 7: disabled"):
        end_stopped(stopped("SIGUSR1"), requeue="auto")


def test_without_scontrol_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Terminated, match=r"does not requeue job 7: .*scontrol"):
        end_stopped(stopped("SIGUSR1"), requeue="auto")
    assert is_cancelled("7")  # nobody knows: then SIGTERM means the end


class Handler:
    """submitit's, as far as it matters."""

    __module__ = "submitit.core.job_environment"

    def __init__(self, fault: Exception | None = None) -> None:
        self.calls: list[int] = []
        self.fault = fault

    def checkpoint_and_try_requeue(self, number: int, frame: Any) -> None:
        self.calls.append(number)
        if self.fault is not None:
            raise self.fault
        raise SystemExit(-1)

    def bypass(self, number: int, frame: Any) -> None:
        pass


@pytest.mark.parametrize("reason", ["SIGUSR2", "the time limit", "SIGTERM"])
def test_submitit_is_the_owner_where_it_started_the_job(slurm: Any, reason: str) -> None:
    asked = slurm()
    handler = Handler()
    ended = stopped(reason, SIGTERM=handler.bypass, SIGUSR2=handler.checkpoint_and_try_requeue)
    with pytest.raises(SystemExit):
        end_stopped(ended, requeue="auto")
    assert handler.calls == [signal.SIGTERM if reason == "SIGTERM" else signal.SIGUSR2]
    assert not asked.exists() or "requeue" not in asked.read_text()


def test_submitit_may_have_had_enough(slurm: Any) -> None:
    asked = slurm()
    handler = Handler(RuntimeError("Job not requeued because: timed-out too many times."))
    with pytest.raises(Terminated, match="timed-out too many times"):
        end_stopped(stopped("SIGUSR2", SIGUSR2=handler.checkpoint_and_try_requeue), requeue="auto")
    assert not asked.exists()


def test_other_handlers_are_nobodys_requeue() -> None:
    handler = Handler()
    assert submitit_handler({signal.SIGTERM: handler.bypass, signal.SIGINT: signal.default_int_handler}) is None
    assert submitit_handler({signal.SIGUSR1: signal.SIG_DFL, signal.SIGUSR2: None}) is None


def test_the_real_submitit_is_known() -> None:
    """Its class and method are where this looks for them."""
    environment = pytest.importorskip("submitit.core.job_environment")
    real = environment.SignalHandler(None, None, None)
    assert submitit_handler({signal.SIGUSR2: real.checkpoint_and_try_requeue}) is not None
    assert submitit_handler({signal.SIGTERM: real.bypass}) is None
