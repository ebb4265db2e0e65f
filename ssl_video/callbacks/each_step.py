"""What is to be done once after each optimizer step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import pytorch_lightning as pl


class EachStep(pl.Callback, ABC):
    """Calls ``on_step_end`` after each optimizer step: where gradients accumulate, once for several batches.

    Lightning's own hook comes after every batch, and after a resume the step that was saved is not done again.
    """

    _seen_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What was done before a resume is not done again."""
        self._seen_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Passes on the batch that ended a step."""
        if trainer.global_step == self._seen_step:
            return  # gradients are still being accumulated
        self._seen_step = trainer.global_step
        self.on_step_end(trainer, pl_module, batch, trainer.global_step)

    @abstractmethod
    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, step: int) -> None:
        """After an optimizer step.

        Args:
            trainer: of the run.
            pl_module: its method.
            batch: the last one of the step.
            step: steps done so far.
        """
