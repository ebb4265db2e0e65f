"""Checkpoints every few steps and at the end; a full disk costs a checkpoint, not the run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssl_video.callbacks.save_checkpoint import SaveCheckpoint
from ssl_video.utils.checkpoint import read_backbone

CONFIG = {"seed": 3}
BACKBONE_CONFIG = {"name": "linear", "num_frames": 4}
TOTAL_STEPS = 10


class FakeTrainer:
    """Counts steps and remembers when it was asked to save."""

    def __init__(self, *, rank: int = 0, full_disk_at: tuple[int, ...] = ()) -> None:
        self.global_step = 0
        self.is_global_zero = rank == 0
        self.full_disk_at = full_disk_at
        self.strategy = SimpleNamespace(checkpoint_io=SimpleNamespace(fault=None))
        self.saved: list[tuple[int, Path]] = []

    def save_checkpoint(self, path: Path) -> None:
        self.strategy.checkpoint_io.fault = None
        if self.global_step in self.full_disk_at:  # noted, not raised: other ranks wait at a barrier
            self.strategy.checkpoint_io.fault = OSError(28, "No space left on device")
            return
        self.saved.append((self.global_step, path))


def run(folder: Path, trainer: Any, *, every_steps: int, start: int = 0, batches_per_step: int = 1) -> Any:
    """Trains to the end; the backbone's weight is the step it was saved at."""
    module: Any = SimpleNamespace(total_steps=TOTAL_STEPS, backbone=nn.Linear(1, 1, bias=False))
    callback = SaveCheckpoint(folder, every_steps=every_steps, config=CONFIG, backbone_config=BACKBONE_CONFIG)
    trainer.global_step = start
    callback.on_train_start(trainer, module)
    for batch in range((TOTAL_STEPS - start) * batches_per_step):
        trainer.global_step = start + (batch + 1) // batches_per_step
        nn.init.constant_(module.backbone.weight, trainer.global_step)
        callback.on_train_batch_end(trainer, module, None, None, batch)
    return callback


def saved_steps(trainer: Any) -> list[int]:
    return [step for step, _ in trainer.saved]


def test_every_few_steps_and_at_the_end(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    run(tmp_path, trainer, every_steps=4)
    assert trainer.saved == [(step, tmp_path / "last.ckpt") for step in (4, 8, 10)]


def test_the_end_is_saved_once_where_it_is_due_anyway(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    run(tmp_path, trainer, every_steps=5)
    assert saved_steps(trainer) == [5, 10]


def test_accumulated_batches_are_saved_once(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    run(tmp_path, trainer, every_steps=4, batches_per_step=3)
    assert saved_steps(trainer) == [4, 8, 10]


def test_what_is_resumed_is_not_saved_again(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    run(tmp_path, trainer, every_steps=4, start=4, batches_per_step=2)
    assert saved_steps(trainer) == [8, 10]


def test_backbone_beside_it_is_of_the_same_step(tmp_path: Path) -> None:
    run(tmp_path, FakeTrainer(), every_steps=4)
    state, config = read_backbone(tmp_path / "backbone.safetensors")
    assert state["weight"].item() == TOTAL_STEPS
    assert config == BACKBONE_CONFIG


def test_only_the_first_rank_writes_the_backbone(tmp_path: Path) -> None:
    trainer = FakeTrainer(rank=1)
    run(tmp_path, trainer, every_steps=4)
    assert saved_steps(trainer) == [4, 8, 10]  # every rank takes part: the strategy decides who writes
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = FakeTrainer(full_disk_at=(4,))
    run(tmp_path, trainer, every_steps=4)
    assert saved_steps(trainer) == [8, 10]
    message = capsys.readouterr().err
    assert "The checkpoint of step 4 could not be written" in message
    assert "No space left on device" in message
    assert str(tmp_path) in message


def test_a_full_disk_at_the_end_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, FakeTrainer(full_disk_at=(10,)), every_steps=4)


def test_the_checkpoint_explains_itself(tmp_path: Path) -> None:
    callback = run(tmp_path, FakeTrainer(), every_steps=10)
    content: dict[str, Any] = {"state_dict": {"weight": torch.zeros(1)}}
    callback.on_save_checkpoint(None, None, content)
    assert content["config"] == CONFIG
    assert content["backbone_config"] == BACKBONE_CONFIG
    assert "state_dict" in content
