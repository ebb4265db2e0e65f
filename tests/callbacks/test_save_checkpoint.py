"""Checkpoints when they are due, the newest and the best kept; a full disk costs a checkpoint, not the run."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssl_video.callbacks import save_checkpoint
from ssl_video.callbacks.save_checkpoint import Criterion, SaveCheckpoint, better_is
from ssl_video.utils.checkpoint import AtomicCheckpointIO, read_backbone, read_checkpoint
from ssl_video.utils.errors import InputError
from ssl_video.utils.kept import by_step

CONFIG = {"seed": 3}
BACKBONE_CONFIG = {"name": "linear", "num_frames": 4}
TOTAL_STEPS = 10


class FullDisk(AtomicCheckpointIO):
    """Refuses some steps, as a full disk does: noted, not raised, because other ranks wait at a barrier."""

    def __init__(self, steps: tuple[int, ...]) -> None:
        self.steps = steps

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if checkpoint["global_step"] in self.steps:
            self.fault = OSError(28, "No space left on device")
        else:
            super().save_checkpoint(checkpoint, path)


class FakeTrainer:
    """Counts steps, writes what the callback adds to a checkpoint, and remembers when it was asked to."""

    def __init__(self, *, rank: int = 0, full_disk_at: tuple[int, ...] = ()) -> None:
        self.global_step = 0
        self.is_global_zero = rank == 0
        self.strategy = SimpleNamespace(checkpoint_io=FullDisk(full_disk_at))
        self.ckpt_path: Path | None = None
        self.callback_metrics: dict[str, Any] = {}
        self.saved: list[int] = []
        self.callback: Any = None
        self.module: Any = SimpleNamespace(total_steps=TOTAL_STEPS, backbone=nn.Linear(1, 1, bias=False))

    def save_checkpoint(self, path: Path) -> None:
        self.saved.append(self.global_step)
        tensors = {"backbone.weight": self.module.backbone.weight.detach().clone(), "other": torch.zeros(1)}
        content = {"global_step": self.global_step, "state_dict": tensors, "state": self.callback.state_dict()}
        self.callback.on_save_checkpoint(self, self.module, content)
        if self.is_global_zero:
            self.strategy.checkpoint_io.save_checkpoint(content, path)


def run(
    folder: Path,
    trainer: Any,
    *,
    start: int = 0,
    batches_per_step: int = 1,
    values: dict[str, list[float]] | None = None,
    **arguments: Any,
) -> SaveCheckpoint:
    """Trains to the end; the backbone's weight is the step it was saved at."""
    settings = {"every_steps": None, "config": CONFIG, "backbone_config": BACKBONE_CONFIG} | arguments
    callback = trainer.callback = SaveCheckpoint(folder, **settings)
    trainer.global_step = start
    callback.on_train_start(trainer, trainer.module)
    for batch in range((TOTAL_STEPS - start) * batches_per_step):
        trainer.global_step = step = start + (batch + 1) // batches_per_step
        nn.init.constant_(trainer.module.backbone.weight, step)
        trainer.callback_metrics = {
            name: torch.tensor(series[step - 1])
            for name, series in (values or {}).items()
            if step and not math.isinf(series[step - 1])
        }
        callback.on_train_batch_end(trainer, trainer.module, None, None, batch)
    callback.on_train_end(trainer, trainer.module)
    return callback


# --- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "expected"), [(4, [4, 8, 10]), (5, [5, 10]), (100, [10])])
def test_every_few_steps_and_once_at_the_end(tmp_path: Path, every: int, expected: list[int]) -> None:
    trainer = FakeTrainer()
    run(tmp_path, trainer, every_steps=every)
    assert trainer.saved == expected
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 10


def test_accumulated_batches_are_saved_once(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    run(tmp_path, trainer, every_steps=4, batches_per_step=3)
    assert trainer.saved == [4, 8, 10]


def test_what_is_resumed_is_not_saved_again(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    run(tmp_path, trainer, every_steps=4, start=4, batches_per_step=2)
    assert trainer.saved == [8, 10]


def test_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a minute, writing too, and a checkpoint every three minutes since the one before."""
    clock = iter(range(0, 60 * 100, 60))
    monkeypatch.setattr(save_checkpoint, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    trainer = FakeTrainer()
    run(tmp_path, trainer, every_minutes=3.0)
    assert trainer.saved == [3, 6, 9, 10]


def test_without_steps_and_minutes_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a kill would cost the whole run"):
        run(tmp_path, FakeTrainer())


# --- what is kept -----------------------------------------------------------------------------------------------------


def weight(folder: Path, name: str) -> float:
    return read_backbone(folder / name)[0]["weight"].item()


def test_the_newest_are_kept_each_with_its_backbone(tmp_path: Path) -> None:
    run(tmp_path, FakeTrainer(), every_steps=2, keep_last=3)
    assert list(by_step(tmp_path)) == [10, 8, 6]
    assert [weight(tmp_path, f"backbone_step_{step}.safetensors") for step in (6, 8, 10)] == [6, 8, 10]
    assert weight(tmp_path, "backbone.safetensors") == 10
    assert read_backbone(tmp_path / "backbone.safetensors")[1] == BACKBONE_CONFIG
    assert (tmp_path / "last.ckpt").samefile(tmp_path / "step_10.ckpt")


def test_none_but_the_last(tmp_path: Path) -> None:
    run(tmp_path, FakeTrainer(), every_steps=2, keep_last=0)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["backbone.safetensors", "last.ckpt"]


INF = math.inf  # a step without the value


@pytest.mark.parametrize(
    ("name", "mode", "series", "best"),
    [
        ("train/loss", "auto", [9, 9, 3, 1, 2, 1, 4, 4, 5, 5], 6),  # means over 4, 4, 2 steps: 5.5, 2.75 …
        ("train/loss", "max", [9, 9, 3, 1, 2, 1, 4, 4, 5, 5], 4),
        ("val/knn_top1", "auto", [INF, INF, INF, 0.3, INF, INF, 0.6, INF, 0.5, INF], 8),
        ("train/loss", "auto", [math.nan] * 4 + [5.0] * 6, 8),
    ],
)
def test_the_best_of_those_that_were_due(tmp_path: Path, name: str, mode: str, series: list[float], best: int) -> None:
    every = 2 if best == 6 else 4
    run(tmp_path, FakeTrainer(), every_steps=every, keep_best=name, keep_best_mode=mode, values={name: series})
    assert read_checkpoint(tmp_path / "best.ckpt")["global_step"] == best
    assert weight(tmp_path, "backbone_best.safetensors") == best


def test_a_value_that_never_comes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, FakeTrainer(), every_steps=4, keep_best="val/knn_top1", values={"train/loss": [1.0] * 10})
    assert not (tmp_path / "best.ckpt").exists()
    assert "keep_best=val/knn_top1: no step before a checkpoint had this value" in (message := capsys.readouterr().err)
    assert "train/loss" in message


def test_which_is_better_goes_by_the_name() -> None:
    assert better_is("train/loss", "auto") == better_is("train/info_nce", "auto") == "min"
    assert better_is("val/knn_top1", "auto") == better_is("health/rankme", "auto") == "max"
    assert better_is("train/loss", "max") == "max"
    with pytest.raises(InputError, match="keep_best=train/other: its name does not tell"):
        better_is("train/other", "auto")


def test_the_mean_goes_on_after_a_resume_in_its_middle() -> None:
    """A stop between two checkpoints changes nothing of which is the best."""

    def seen(criterion: Criterion, values: list[float]) -> Criterion:
        for value in values:
            criterion.see(SimpleNamespace(callback_metrics={"train/loss": torch.tensor(value)}))  # type: ignore[arg-type]
        return criterion

    values = [0.1, 0.7, 0.3]
    whole, before, after = (Criterion("train/loss", "min") for _ in range(3))
    seen(before, values[:1])
    after.load_state_dict(before.state_dict())
    assert seen(whole, values).judge(3) and seen(after, values[1:]).judge(3)
    assert whole.best == after.best == pytest.approx(1.1 / 3)
    assert whole.best_step == 3
    other = Criterion("train/other", "min")
    other.load_state_dict(whole.state_dict())
    assert other.best is None


# --- several processes, full disks ------------------------------------------------------------------------------------


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    trainer = FakeTrainer(rank=1)
    run(tmp_path, trainer, every_steps=4)
    assert trainer.saved == [4, 8, 10]  # every rank takes part: the strategy decides who writes
    assert not list(tmp_path.iterdir())


def test_processes_that_resumed_different_steps_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save_checkpoint, "gather_objects", lambda step: [step, step - 2])
    with pytest.raises(RuntimeError, match=r"go on from the steps \[4, 2\]: they see different files"):
        run(tmp_path, FakeTrainer(), every_steps=4, start=4)


def test_a_full_disk_is_told_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = FakeTrainer(full_disk_at=(8,))
    run(
        tmp_path,
        trainer,
        every_steps=4,
        keep_best="train/loss",
        values={"train/loss": [5.0] * 4 + [1.0] * 4 + [3.0] * 2},
    )
    assert list(by_step(tmp_path)) == [10, 4]
    assert read_checkpoint(tmp_path / "best.ckpt")["global_step"] == 10  # not 8, of which there is no file
    message = capsys.readouterr().err
    assert "The checkpoint of step 8 could not be written" in message
    assert "No space left on device" in message
    assert str(tmp_path) in message


def test_a_full_disk_at_the_end_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, FakeTrainer(full_disk_at=(10,)), every_steps=4)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 8


def test_the_start_clears_what_a_kill_left_and_sets_aside_what_is_newer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, FakeTrainer(), every_steps=4)
    (tmp_path / ".last.ckpt.0123456789ab.partial").write_bytes(b"half")
    trainer = FakeTrainer()
    trainer.ckpt_path = tmp_path / "step_8.ckpt"
    run(tmp_path, trainer, every_steps=100, start=8)
    assert "unused_step_10.ckpt" in capsys.readouterr().out
    assert not list(tmp_path.glob(".*.partial"))
    assert list(by_step(tmp_path)) == [10, 8]


def test_the_checkpoint_explains_itself(tmp_path: Path) -> None:
    run(tmp_path, FakeTrainer(), every_steps=10)
    content = read_checkpoint(tmp_path / "last.ckpt")
    assert content["config"] == CONFIG
    assert content["backbone_config"] == BACKBONE_CONFIG
