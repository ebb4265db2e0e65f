"""Runs of several processes, started as a user starts them: what they compute, and how they end when one does."""

import csv
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_video.utils.checkpoint import read_checkpoint
from support.folders import REPOSITORY, SMALL, labelled_folder, read_metrics

pytestmark = pytest.mark.slow

TRAIN = [sys.executable, str(REPOSITORY / "train.py")]
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
    str(REPOSITORY / "train.py"),
]
TWO = ("strategy=ddp_cpu", "trainer.devices=2")
CONTIGUOUS = "speed.memory_format=contiguous"  # as FSDP has it: another order of sums


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=19)


def start(
    folder: Path,
    videos: Path,
    *overrides: str,
    program: Sequence[str] = TRAIN,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    settings = ["dataset=folder", f"dataset.root={videos}", "checkpoint_every_steps=2", "callbacks=none", *SMALL]
    given = {text.split("=")[0] for text in overrides}
    small = [text for text in settings if text.split("=")[0] not in given]
    if "method" in given:
        small = [text for text in small if "queue" not in text]
    return subprocess.Popen(
        [*program, *small, *overrides],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}", **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, videos: Path, *overrides: str, program: Sequence[str] = TRAIN) -> tuple[int, str]:
    process = start(folder, videos, *overrides, program=program)
    printed, _ = process.communicate(timeout=240)
    return process.returncode, printed


def fault(kind: str, **values: object) -> list[str]:
    arguments = [f"+callbacks.fault.{name}={value}" for name, value in values.items()]
    return [f"+callbacks.fault._target_=support.faults.{kind}", *arguments]


def left_over(folder: Path) -> list[str]:
    """Processes whose working folder is the run's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and b"train.py" in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


def weights(run_dir: Path) -> dict[str, Any]:
    state: dict[str, Any] = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["state_dict"]
    return state


# --- one process dies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raise", ["ValueError: broken on purpose", "ended with exit code 1"]),
        ("kill", ["was ended by SIGKILL"]),
        ("exit", ["ended with exit code 3"]),
    ],
)
def test_all_end_with_the_one_that_died_and_its_reason_is_told(
    tmp_path: Path, videos: Path, how: str, told: list[str]
) -> None:
    code, printed = run(tmp_path, videos, *TWO, "run_dir=a", *fault("Die", rank=1, step=3, how=how))
    assert code == 1
    for text in told:
        assert text in printed
    assert printed.rstrip().splitlines()[-1].startswith("Rank 1 (process ")
    assert "gloo" not in printed  # what its end did to the other process is no traceback of its own
    assert left_over(tmp_path) == []
    assert read_checkpoint(tmp_path / "a/checkpoints/last.ckpt")["global_step"] == 2


def test_no_process_outlives_the_first_one(tmp_path: Path, videos: Path) -> None:
    code, _ = run(tmp_path, videos, *TWO, "run_dir=a", *fault("Die", rank=0, step=3, how="kill"))
    assert code == -9
    assert left_over(tmp_path) == []  # the pipe that was read to its end was theirs too


def test_torchrun_ends_all_with_the_one_that_died(tmp_path: Path, videos: Path) -> None:
    died = fault("Die", rank=1, step=3, how="raise")
    code, printed = run(tmp_path, videos, "strategy=ddp_cpu", "run_dir=a", *died, program=TORCHRUN)
    assert code == 1
    assert "ValueError: broken on purpose" in printed
    assert left_over(tmp_path) == []


# --- a bad loss -------------------------------------------------------------------------------------------------------


METHOD = "method=simclr"  # with batch norm of each process alone, only one of them has the bad loss
APART = "method.sync_batch_norm=false"


def test_a_bad_loss_of_one_process_stops_all(tmp_path: Path, videos: Path) -> None:
    poison = fault("Poison", rank=1, steps="[2]")
    code, printed = run(tmp_path, videos, *TWO, "run_dir=a", "trainer.max_steps=4", *poison)
    assert code == 1
    assert "The loss of step 2 is nan on rank 1" in printed
    assert "Traceback" not in printed
    assert read_checkpoint(tmp_path / "a/checkpoints/last.ckpt")["global_step"] == 2


def test_a_bad_step_is_skipped_by_all_processes_alike(tmp_path: Path, videos: Path) -> None:
    poison = fault("Poison", rank=1, steps="[2]")
    code, printed = run(
        tmp_path, videos, *TWO, "run_dir=a", "trainer.max_steps=4", "bad_loss=skip", METHOD, APART, *poison
    )
    assert code == 0, printed
    assert "Step 2 was skipped" in printed
    with (tmp_path / "a/bad_batches.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["step"], row["rank"]) for row in rows} <= {("2", "0"), ("2", "1")}
    assert len(rows) in (4, 8)
    assert len(read_metrics(tmp_path / "a")) == 4
    assert all(value.isfinite().all() for value in weights(tmp_path / "a").values())


# --- other starts -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_lightning(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("by_lightning")
    code, printed = run(folder, videos, *TWO, "run_dir=a", "trainer.max_steps=4", CONTIGUOUS)
    assert code == 0, printed
    assert "effective batch 8 videos (4 x 2 device(s) x 1 node(s) x 1 accumulated)" in printed
    return weights(folder / "a")


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_torchrun_starts_the_same_run(tmp_path: Path, videos: Path, by_lightning: dict[str, Any]) -> None:
    """Without being told how many processes there are."""
    arguments = "strategy=ddp_cpu", "run_dir=a", "trainer.max_steps=4", CONTIGUOUS
    code, printed = run(tmp_path, videos, *arguments, program=TORCHRUN)
    assert code == 0, printed
    assert _equal(weights(tmp_path / "a"), by_lightning)
    assert len(read_metrics(tmp_path / "a")) == 4


def _srun(folder: Path, videos: Path, *overrides: str, port: int) -> list[tuple[int, str]]:
    """Two processes with what srun gives each of two tasks on one node."""
    common = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    common |= {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        start(folder, videos, *overrides, variables={**common, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)})
        for n in range(2)
    ]
    printed = [process.communicate(timeout=240)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, printed, strict=True)]


def test_srun_starts_the_same_run(tmp_path: Path, videos: Path, by_lightning: dict[str, Any]) -> None:
    ended = _srun(tmp_path, videos, *TWO, "run_dir=a", "trainer.max_steps=4", CONTIGUOUS, port=29601)
    assert [code for code, _ in ended] == [0, 0], ended
    assert "effective batch" in ended[0][1]
    assert ended[1][1].strip() == ""
    assert _equal(weights(tmp_path / "a"), by_lightning)


def test_a_task_of_srun_that_dies_ends_the_other(tmp_path: Path, videos: Path) -> None:
    died = fault("Die", rank=0, step=3, how="kill")
    (first, _), (second, printed) = _srun(tmp_path, videos, *TWO, "run_dir=a", *died, port=29602)
    assert (first, second) == (-9, 1)
    assert "Rank 1: the connection to another process broke, which has ended" in printed


# --- FSDP -------------------------------------------------------------------------------------------------------------


def test_fsdp_trains_the_same_weights_and_its_checkpoints_are_whole(
    tmp_path: Path, videos: Path, by_lightning: dict[str, Any]
) -> None:
    arguments = "strategy=fsdp", "trainer.devices=2", "run_dir=a", "trainer.max_steps=4"
    code, printed = run(tmp_path, videos, *arguments)
    assert code == 0, printed
    assert _equal(weights(tmp_path / "a"), by_lightning)


@pytest.mark.parametrize(("first", "then"), [("fsdp", "ddp_cpu"), ("ddp_cpu", "fsdp"), ("fsdp", "fsdp")])
def test_a_run_goes_on_by_another_strategy(
    tmp_path: Path, videos: Path, by_lightning: dict[str, Any], first: str, then: str
) -> None:
    common = "trainer.devices=2", "run_dir=a", "trainer.max_steps=4", CONTIGUOUS
    code, printed = run(tmp_path, videos, f"strategy={first}", *common, *fault("Die", rank=1, step=3, how="exit"))
    assert code == 1, printed
    assert read_checkpoint(tmp_path / "a/checkpoints/last.ckpt")["global_step"] == 2
    harmless = fault("Die", rank=-1, step=3, how="exit")
    code, printed = run(tmp_path, videos, "resume=a", f"strategy={then}", *harmless)
    assert code == 0, printed
    assert _equal(weights(tmp_path / "a"), by_lightning)


def test_a_bad_step_is_skipped_under_fsdp(tmp_path: Path, videos: Path) -> None:
    poison = fault("Poison", rank=1, steps="[2]")
    arguments = "strategy=fsdp", "trainer.devices=2", "run_dir=a", "trainer.max_steps=4", "bad_loss=skip"
    code, printed = run(tmp_path, videos, *arguments, *poison)
    assert code == 0, printed
    assert "Step 2 was skipped" in printed
    assert all(value.isfinite().all() for value in weights(tmp_path / "a").values())


def test_what_one_process_cannot_see_alone_is_left_out_under_fsdp(tmp_path: Path, videos: Path) -> None:
    """Pictures are made by the first process; a forward pass of a divided network would wait there for the others."""
    code, printed = run(
        *(tmp_path, videos, "strategy=fsdp", "trainer.devices=2", "run_dir=a", "trainer.max_steps=2"),
        *("logger=[csv,tensorboard]", "callbacks=[health]"),
    )
    assert code == 0, printed
    assert "a picture could not be made: under strategy=fsdp no process has the whole network" in printed
    assert "health/gradient_norm" in read_metrics(tmp_path / "a")[-1]
