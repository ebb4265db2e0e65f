"""Checkpoints from the command line: what is kept, what damage and a full disk cost, what another machine changes."""

import json
import os
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

from ssl_video.callbacks.metrics_csv import MetricsCSV
from ssl_video.callbacks.save_checkpoint import SaveCheckpoint
from ssl_video.cli import evaluate
from ssl_video.cli.resume import settle_threads
from ssl_video.cli.train import main
from ssl_video.utils import checkpoint
from ssl_video.utils.checkpoint import read_checkpoint
from ssl_video.utils.run import write_json
from support.folders import SMALL, labelled_folder, read_metrics

pytestmark = pytest.mark.usefixtures("own_folder")

STEPS = 6
Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=16)


def command(videos: Path, *overrides: str) -> list[str]:
    own = [f"dataset.root={videos}", f"trainer.max_steps={STEPS}", "checkpoint_every_steps=2", "callbacks=none"]
    return ["dataset=folder", *own, *SMALL, *overrides]


def step_of(file: str) -> int:
    return int(read_checkpoint(Path(file))["global_step"])


def state(run: str) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = read_checkpoint(Path(run) / "checkpoints" / "last.ckpt")["state_dict"]
    return content


def truncate(file: str) -> None:
    Path(file).write_bytes(Path(file).read_bytes()[:-1000])


def test_a_damaged_newest_one_is_passed_over_and_the_rest_done_again(videos: Path, capsys: Printed) -> None:
    assert main(command(videos, "run_dir=a", "keep_best=train/loss", "keep_last=3")) == 0
    names = {file.name for file in Path("a/checkpoints").glob("*.ckpt")}
    assert names == {"last.ckpt", "best.ckpt", "step_2.ckpt", "step_4.ckpt", "step_6.ckpt"}
    whole, rows = state("a"), read_metrics(Path("a"))
    truncate("a/checkpoints/last.ckpt")
    capsys.readouterr()
    assert main(command(videos, "run_dir=a", "resume=auto", "keep_best=train/loss", "keep_last=3")) == 0
    printed = capsys.readouterr().out
    assert "Damaged, and passed over for a/checkpoints/step_4.ckpt (step 4):\n  a/checkpoints/last.ckpt is" in printed
    assert "unused_step_6.ckpt" in printed
    assert read_metrics(Path("a")) == rows
    again = state("a")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert json.loads(Path("a/run.json").read_text())["resumed_at"] == [4]


@pytest.mark.slow
def test_a_run_without_an_intact_one_is_refused(videos: Path, capsys: Printed) -> None:
    assert main(command(videos, "run_dir=a", "keep_last=1")) == 0
    truncate("a/checkpoints/last.ckpt")
    for resume in ("resume=auto", "resume=a"):
        assert main(command(videos, "run_dir=a", resume)) == 2
        assert "None of this run's checkpoints can be read" in capsys.readouterr().err


@pytest.mark.slow
def test_kept_ones_are_resumed_and_evaluated(videos: Path) -> None:
    labels = [f"dataset.labels={videos / 'labels.csv'}", "dataset.test_groups=[3]"]
    assert main(command(videos, "run_dir=a", "keep_best=train/loss", "keep_last=3", *labels)) == 0
    assert len(list(Path("a/checkpoints").iterdir())) == 2 * 5
    results = {}
    for name in ("step_2.ckpt", "backbone_step_2.safetensors", "best.ckpt", "backbone_best.safetensors"):
        words = [f"checkpoint=a/checkpoints/{name}", "evaluation=knn", "baselines=[]", f"run_dir=of_{name}", *labels]
        assert evaluate.main([*words, "dataset=folder", f"dataset.root={videos}", "dataset.num_workers=0"]) == 0
        results[name] = json.loads(Path(f"of_{name}/metrics.json").read_text())
    assert results["step_2.ckpt"]["metrics"] == results["backbone_step_2.safetensors"]["metrics"]
    assert results["best.ckpt"]["checkpoint"].startswith("best.ckpt sha256:")
    assert main(["resume=a/checkpoints/step_2.ckpt"]) == 0
    assert json.loads(Path("a/run.json").read_text())["resumed_at"] == [2]
    assert step_of("a/checkpoints/last.ckpt") == STEPS
    assert [int(row["step"]) for row in read_metrics(Path("a"))] == list(range(STEPS))


class SmallDisk:
    """A limit of the system on every file that this process writes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


@pytest.mark.slow
def test_a_full_disk_costs_a_checkpoint_and_nothing_else(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    assert main(command(videos, "run_dir=whole")) == 0
    save = checkpoint._save

    def save_on_a_small_disk(content: dict[str, Any], path: Path) -> None:
        with SmallDisk(100_000 if content["global_step"] == 4 else 2**30):
            save(content, path)

    monkeypatch.setattr(checkpoint, "_save", save_on_a_small_disk)
    assert main(command(videos, "run_dir=a")) == 0
    assert "The checkpoint of step 4 could not be written (not all of it could be written" in capsys.readouterr().err
    assert [file.name for file in sorted(Path("a/checkpoints").glob("*.ckpt"))] == [
        "last.ckpt",
        "step_2.ckpt",
        "step_6.ckpt",
    ]
    assert read_metrics(Path("a")) == read_metrics(Path("whole"))


def test_rows_that_a_full_disk_refuses_are_written_later_and_once(tmp_path: Path) -> None:
    """Nor is a checkpoint written that would not repeat them."""
    file = tmp_path / "metrics.csv"
    csv = MetricsCSV(file)
    trainer: Any = SimpleNamespace(
        global_step=0, is_global_zero=True, callback_metrics={}, strategy=SimpleNamespace(checkpoint_io=None)
    )
    trainer.strategy.checkpoint_io = checkpoint.AtomicCheckpointIO()

    def step(number: int) -> None:
        trainer.global_step, trainer.callback_metrics = number + 1, {"train/loss": torch.tensor(number / 3)}
        csv.on_train_batch_end(trainer, None, None, SimpleNamespace(epoch=0), 0)  # type: ignore[arg-type]

    def save() -> None:
        csv.on_save_checkpoint(trainer, None, {})  # type: ignore[arg-type]
        trainer.strategy.checkpoint_io.save_checkpoint({"global_step": trainer.global_step}, tmp_path / "last.ckpt")

    step(0)
    save()
    for number in range(1, 5):
        step(number)
    size = file.stat().st_size
    with SmallDisk(size + 30):
        save()
    assert file.stat().st_size == size
    assert step_of(str(tmp_path / "last.ckpt")) == 1
    with pytest.raises(OSError, match="too large"):
        trainer.strategy.checkpoint_io.raise_fault()
    step(5)
    save()
    with file.open() as text:
        assert [line.split(",")[1] for line in text][1:] == [str(number) for number in range(6)]
    assert step_of(str(tmp_path / "last.ckpt")) == 6


# --- another machine --------------------------------------------------------------------------------------------------


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A run that began with three threads, on a machine of four cores."""
    write_json(tmp_path / "run.json", {"threads": 3})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    before = torch.get_num_threads()
    yield SimpleNamespace(trainer=SimpleNamespace(accelerator="cpu", devices=1, num_nodes=1))
    torch.set_num_threads(before)


def test_the_number_of_threads_is_that_of_the_beginning(three_threads: Any, tmp_path: Path, capsys: Printed) -> None:
    settle_threads(three_threads, tmp_path)
    assert torch.get_num_threads() == 3
    assert not capsys.readouterr().out


def test_another_number_of_threads_is_told(
    three_threads: Any, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    settle_threads(three_threads, tmp_path)
    assert torch.get_num_threads() == before
    assert f"began with 3 threads and goes on with {before}" in capsys.readouterr().out
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the user's wish
    settle_threads(three_threads, tmp_path)
    assert "OMP_NUM_THREADS=3 keeps it" in capsys.readouterr().out


def test_several_processes_get_the_same_number(
    three_threads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_threads.trainer.devices = 2
    settle_threads(three_threads, tmp_path)
    assert os.environ["OMP_NUM_THREADS"] == "3"  # Lightning keeps it, and the others inherit it
    monkeypatch.delenv("OMP_NUM_THREADS")


@pytest.mark.slow
def test_another_batch_goes_on_at_the_same_video(videos: Path, capsys: Printed) -> None:
    """16 videos: two batches of four, then four of two, and the next epoch in batches of four again."""
    seen: list[list[int]] = []

    from ssl_video.methods.base import SSLMethod

    step = SSLMethod.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(batch.rows.tolist())
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SSLMethod, "training_step", training_step)
        assert main(command(videos, "run_dir=a", "trainer.max_steps=2")) == 0
        assert main(["resume=a", "batch_size=2", "trainer.max_steps=6"]) == 0
        printed = capsys.readouterr().out
        assert main(["resume=a", "batch_size=4", "trainer.max_steps=8"]) == 0
    assert "began with 1 process(es) of 4 videos and goes on with 1 of 2" in printed
    assert "an epoch 8 batches instead of 4" in printed
    epoch = [row for batch in seen[:6] for row in batch]
    assert sorted(epoch) == list(range(16))  # each video once, over both sizes
    assert [len(batch) for batch in seen] == [4, 4, 2, 2, 2, 2, 4, 4]
    assert [int(row["step"]) for row in read_metrics(Path("a"))] == list(range(8))
    assert [int(row["epoch"]) for row in read_metrics(Path("a"))] == [0] * 6 + [1] * 2


def test_a_backbone_that_a_kill_left_behind_is_made_good(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between the checkpoint and its backbone: the resumed run begins with writing the right one."""
    assert main(command(videos, "trainer.max_steps=2", "run_dir=a")) == 0
    right = Path("a/checkpoints/backbone.safetensors").read_bytes()
    Path("a/checkpoints/backbone.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(SaveCheckpoint, "on_train_batch_end", killed)
        assert main(["resume=a", "trainer.max_steps=6"]) == 1
    left, there = (safetensors.torch.load(content) for content in (right, read_bytes("a")))
    assert left.keys() == there.keys()
    assert all(torch.equal(left[name], there[name]) for name in left)


def killed(*_: Any) -> None:
    raise RuntimeError("killed by the test")


def read_bytes(run: str) -> bytes:
    return (Path(run) / "checkpoints" / "backbone.safetensors").read_bytes()
