"""What another process's end does to this one is told in one line; see test_several_processes for whole runs."""

import subprocess
import sys

import pytest
import torch.distributed as dist

from ssl_video.callbacks.stop_signals import Stopped
from ssl_video.cli import rank_watch
from ssl_video.utils.errors import RunFault

BROKEN = "[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1. This is typically caused by …"


def _child(monkeypatch: pytest.MonkeyPatch, code: str) -> "subprocess.Popen[bytes]":
    child = subprocess.Popen([sys.executable, "-S", "-c", code])
    monkeypatch.setattr(rank_watch, "_children", [child])
    return child


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise SystemExit(3)", "ended with exit code 3; what it said of it stands above."),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL (perhaps the machine ran out of memory)."),
    ],
)
def test_a_broken_connection_is_told_as_the_end_of_the_process(
    monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    child = _child(monkeypatch, code)
    with pytest.raises(RunFault) as fault, rank_watch.ended_together():
        raise RuntimeError(BROKEN)
    assert str(fault.value) == f"Rank 1 (process {child.pid}) {told}"


@pytest.mark.parametrize("fault", [RuntimeError(BROKEN), dist.DistBackendError("NCCL error: remote process exited")])
def test_a_process_that_started_no_other_says_what_it_knows(
    monkeypatch: pytest.MonkeyPatch, fault: RuntimeError
) -> None:
    monkeypatch.setattr(rank_watch, "_children", [])
    with pytest.raises(RunFault, match="Rank 0: the connection to another") as told, rank_watch.ended_together():
        raise fault
    assert "typically" not in str(told.value)


def test_a_fault_of_its_own_is_left_as_it_is_and_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_watch, "LAST_WORDS_SECONDS", 0.1)
    child = _child(monkeypatch, "import time; time.sleep(600)")
    with pytest.raises(ValueError, match="own"), rank_watch.ended_together():
        raise ValueError("own")
    assert child.wait(30) == -9


def test_a_run_that_all_processes_end_together_kills_none(monkeypatch: pytest.MonkeyPatch) -> None:
    child = _child(monkeypatch, "import time; time.sleep(600)")
    with pytest.raises(Stopped), rank_watch.ended_together():
        raise Stopped
    assert child.poll() is None
    child.kill()
    child.wait()


def test_a_lightning_without_an_observer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_watch, "LIGHTNINGS_OBSERVER", "_other_name")
    with pytest.raises(RuntimeError, match=r"has no .*_other_name to be replaced"):
        rank_watch.watch_processes.__wrapped__()


def test_lightnings_own_observer_is_replaced_by_its_name() -> None:
    """A Lightning that calls it otherwise would kill the first process again, without a word and with 137."""
    for launcher in (rank_watch.fabric_launcher, rank_watch.trainer_launcher):
        assert callable(getattr(launcher, rank_watch.LIGHTNINGS_OBSERVER))
