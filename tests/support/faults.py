"""Callbacks that break a run on purpose, to see what it does: ``+callbacks.fault._target_=support.faults.…``."""

import os
import signal
from collections.abc import Sequence
from typing import Any, Literal

import pytorch_lightning as pl


class Die(pl.Callback):
    """Ends one process at the start of a step: by an exception, SIGKILL, or without a word."""

    def __init__(self, *, rank: int, step: int, how: Literal["raise", "kill", "exit"]) -> None:
        self.rank, self.step, self.how = rank, step, how

    def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
        """Does it."""
        if (trainer.global_rank, trainer.global_step) != (self.rank, self.step):
            return
        if self.how == "raise":
            raise ValueError("broken on purpose")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(3)


class Poison(pl.Callback):
    """Fills the clips of one process with NaN at some steps."""

    def __init__(self, *, rank: int, steps: Sequence[int]) -> None:
        self.rank, self.steps = rank, steps

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Does it."""
        if trainer.global_rank == self.rank and trainer.global_step in self.steps:
            batch.clips.fill_(float("nan"))
