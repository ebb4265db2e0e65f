"""A stand-in for the trainer, for methods that are asked outside a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ssl_video.methods.base import SSLMethod


def attach_stand_in(method: SSLMethod[Any], *, total_steps: int, step: int = 0, batches_per_epoch: int) -> None:
    """Gives a method what it asks of a trainer: one process in the middle of a run that does not take place.

    Args:
        method: its trainer is replaced.
        total_steps: optimizer steps of the run.
        step: those that are done.
        batches_per_epoch: of the run's data, a step each.
    """
    trainer: Any = SimpleNamespace(
        global_step=step,
        current_epoch=step // batches_per_epoch,
        global_rank=0,
        world_size=1,
        max_steps=total_steps,
        max_epochs=-1,
        accumulate_grad_batches=1,
        datamodule=SimpleNamespace(batches_per_epoch=lambda processes: batches_per_epoch),
    )
    method._trainer = trainer
