"""A study that compares a value which no run has is told so after one step, not after a night."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from ssl_video.utils.errors import InputError


class CheckObjective(pl.Callback):
    """Refuses a ``train/…`` value that the first step does not have; others may come later.

    Args:
        objective: name of the value.
    """

    def __init__(self, objective: str) -> None:
        self.objective = objective
        self._checked = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks once.

        Raises:
            InputError: names the values that are there.
        """
        if self._checked:
            return
        self._checked = True
        there = sorted(name for name in trainer.callback_metrics if name.startswith("train/"))
        if self.objective.startswith("train/") and self.objective not in there:
            raise InputError(f"sweep.objective={self.objective} is no value of this run; there are {', '.join(there)}.")
