"""A run that is asked to end: a checkpoint of the step, the right exit code, one who starts it again, and no trace."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_video.cli import fit
from ssl_video.cli.train import main
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.checkpoint import read_checkpoint
from support.folders import REPOSITORY, SMALL, labelled_folder, read_metrics

STEPS = 6
NEVER = -1
Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=15)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def command(videos: Path, *overrides: str) -> list[str]:
    own = [f"dataset.root={videos}", f"trainer.max_steps={STEPS}", "checkpoint_every_steps=4", "callbacks=none"]
    return ["dataset=folder", *own, *SMALL, *overrides]


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sends this process a signal in the middle of the step after so many."""
    step = SSLMethod.training_step

    def at(after: int, name: str) -> None:
        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            loss = step(self, batch, batch_idx)
            if self.global_step == after:
                os.kill(os.getpid(), signal.Signals[name])
            return loss

        monkeypatch.setattr(SSLMethod, "training_step", training_step)

    return at


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of SLURM without SLURM: what ``scontrol`` is asked stands in the file."""
    asked, script = tmp_path / "asked", tmp_path / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {asked}\necho "JobId=7 JobState=RUNNING"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return asked


def record(run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(run) / "run.json").read_text())
    return content


def state(run: str) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = read_checkpoint(Path(run) / "checkpoints" / "last.ckpt")["state_dict"]
    return content


def assert_same(run: str, other: str) -> None:
    assert [int(row["step"]) for row in read_metrics(Path(run))] == list(range(STEPS))
    assert read_metrics(Path(run)) == read_metrics(Path(other))
    one, two = state(run), state(other)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_sigterm_saves_the_step_it_came_in(videos: Path, signalled: Any, capsys: Printed) -> None:
    before = signal.getsignal(signal.SIGTERM)
    signalled(1, "SIGTERM")
    assert main(command(videos, "run_dir=part")) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_checkpoint(Path("part/checkpoints/last.ckpt"))["global_step"] == 2  # in mid-epoch, and not one of 4
    [stop] = record("part")["stops"]
    assert (stop["reason"], stop["step"]) == ("SIGTERM", 2)
    assert 0 < stop["seconds"] < 60
    printed = capsys.readouterr()
    assert "Ended by SIGTERM after 2 steps, safe after" in printed.out
    assert "can be resumed" in printed.err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 143)])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(videos: Path, signalled: Any, name: str, code: int) -> None:
    signalled(1, name)
    assert main(command(videos, "run_dir=part")) == code
    signalled(NEVER, name)
    assert main(command(videos, "run_dir=part", "resume=auto")) == 0
    assert main(command(videos, "run_dir=whole")) == 0
    assert_same("part", "whole")
    assert record("part")["resumed_at"] == [2]
    assert len(record("part")["stops"]) == 1


@pytest.mark.parametrize(
    ("job", "name", "seconds"), [("7", "SIGUSR1", 30.0), ("7", "SIGINT", None), (None, "SIGTERM", None)]
)
@pytest.mark.slow
def test_loggers_are_hurried_where_slurm_ends_the_job(
    videos: Path,
    signalled: Any,
    scontrol: Path,
    monkeypatch: pytest.MonkeyPatch,
    job: str | None,
    name: str,
    seconds: float | None,
) -> None:
    asked: list[float | None] = []
    monkeypatch.setattr(fit, "close_loggers", lambda trainer, run_dir, *, seconds: asked.append(seconds))
    if job is None:
        monkeypatch.delenv("SLURM_JOB_ID")
    signalled(1, name)
    main(command(videos, "run_dir=part"))
    assert asked == [seconds]


@pytest.mark.slow
def test_a_preempted_job_is_requeued_and_finds_its_own_run(
    videos: Path, signalled: Any, scontrol: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """Without ``resume=`` and without ``run_dir=``: by the job's number, also beside a newer run."""
    signalled(2, "SIGUSR1")
    assert main(command(videos)) == 0
    assert scontrol.read_text() == "requeue 7\n"
    assert "job 7 is requeued" in capsys.readouterr().err
    [run] = Path("outputs/moco_r3d_tiny_folder").iterdir()
    assert (record(str(run))["job"], record(str(run))["finished"]) == ("7", False)
    signalled(NEVER, "SIGUSR1")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert main(command(videos)) == 0  # another job's run, which is newer
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main(command(videos)) == 0
    assert f"Job 7 starts again: going on with {run}" in capsys.readouterr().out
    other = next(folder for folder in run.parent.iterdir() if folder != run)
    assert_same(str(run), str(other))
    assert record(str(run))["resumed_at"] == [3]


@pytest.mark.slow
def test_the_time_limit_ends_a_run(videos: Path, capsys: Printed) -> None:
    assert main(command(videos, "run_dir=a", "time_limit_minutes=0.0001")) == 143
    assert read_checkpoint(Path("a/checkpoints/last.ckpt"))["global_step"] == 1
    assert "Ended by the time limit" in capsys.readouterr().err


# --- processes of their own -------------------------------------------------------------------------------------------


TWO = (
    "strategy=ddp_cpu",
    "trainer.devices=2",
    "batch_size=2",
    "trainer.max_steps=40",
    "checkpoint_every_steps=1000",
)


class Started:
    """train.py as a user starts it, in a group of its own."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "train.py"), *arguments],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, file: Path) -> None:
        while not file.exists():
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        output = self.process.communicate(timeout=120)[0]
        return self.process.returncode, output


def is_empty(group: int, *, seconds: float = 60.0) -> bool:
    """Whether a group's processes have all ended, some a moment after the first."""
    until = time.monotonic() + seconds
    while processes_of(group) and time.monotonic() < until:
        time.sleep(0.1)
    return not processes_of(group)


def processes_of(group: int) -> list[str]:
    found = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True, check=False)
    return found.stdout.split()


def stopped_by(rank: int, videos: Path, *more: str) -> dict[str, Any]:
    """What the record says after SIGTERM to one of two processes, in the middle of the run."""
    started = Started(command(videos, *TWO, *more, "run_dir=part", "checkpoint_every_minutes=0.001"))
    started.wait_for(Path("part/checkpoints/last.ckpt"))
    others = [int(pid) for pid in processes_of(started.process.pid) if int(pid) != started.process.pid]
    os.kill(started.process.pid if rank == 0 else others[0], signal.SIGTERM)
    code, output = started.end()
    assert code == 143, output
    assert is_empty(started.process.pid)
    [stop] = record("part")["stops"]
    assert read_checkpoint(Path("part/checkpoints/last.ckpt"))["global_step"] == stop["step"]
    return dict(stop)


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_ends_both_and_the_run_goes_on_exactly(videos: Path) -> None:
    stop = stopped_by(0, videos)
    assert 0 < stop["step"] < 40 and stop["seconds"] > 0
    for arguments in (["resume=part", "checkpoint_every_minutes=null"], command(videos, *TWO, "run_dir=whole")):
        code, output = Started(arguments).end()
        assert code == 0, output
    assert record("part")["resumed_at"] == [stop["step"]]
    assert [int(row["step"]) for row in read_metrics(Path("part"))] == list(range(40))
    assert read_metrics(Path("part")) == read_metrics(Path("whole"))
    one, two = state("part"), state("whole")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_sigterm_to_the_second_of_two_processes_ends_both(videos: Path) -> None:
    assert stopped_by(1, videos, "trainer.max_steps=4000")["seconds"] is None  # the first one was not asked


@pytest.mark.slow
def test_workers_and_decoding_processes_leave_the_signals_to_their_run(videos: Path) -> None:
    """A cluster sends them to every process of a job: none may die of it, and no video be blamed."""
    more = ["trainer.max_steps=2000", "dataset.num_workers=2", "reader.isolate=true", "cache_dir=cache", "run_dir=a"]
    started = Started([*command(videos, *more), "checkpoint_every_steps=5"])
    started.wait_for(Path("a/checkpoints/last.ckpt"))
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
    parents = dict(zip(map(int, found[::2]), map(int, found[1::2]), strict=True))
    workers = [pid for pid, parent in parents.items() if parent == started.process.pid]
    decoders = [pid for pid, parent in parents.items() if parent in workers]
    assert len(workers) == 2 and decoders
    for name in ("SIGUSR1", "SIGUSR2", "SIGTERM"):
        for pid in [*workers, *decoders]:
            os.kill(pid, signal.Signals[name])
    time.sleep(0.5)  # time to die in
    os.killpg(started.process.pid, signal.SIGTERM)
    code, output = started.end()
    assert code == 143, output
    assert record("a")["stops"][0]["step"] > 5
    assert not Path("a/decode_failures.csv").exists()
    assert is_empty(started.process.pid)
