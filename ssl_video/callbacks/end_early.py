"""A run that promises nothing ends itself, and its score counts as it is: a study's time goes to the others."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl

from ssl_video.utils.errors import InputError


class EndEarly(pl.Callback):
    """Ends the run where a value lies below a bar when it is first measured from a named step on.

    The run is judged once. It ends as a finished one, with a checkpoint where one is due. It stands behind the callback
    that measures the value.

    Args:
        value: name among ``trainer.callback_metrics``.
        at_step: optimizer step from which on it is judged.
        below: the bar, in the value's unit.
    """

    def __init__(self, *, value: str = "val/knn_top1", at_step: int, below: float) -> None:
        if at_step < 1:
            raise InputError(f"end_early: at_step={at_step} must be at least 1.")
        self.value = value
        self.at_step = at_step
        self.below = below
        self.judged = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judges when the value is there."""
        measured = trainer.callback_metrics.get(self.value)
        if self.judged or measured is None or trainer.global_step < self.at_step:
            return
        self.judged = True
        ends = float(measured) < self.below
        # Ranks that disagree, by whatever rounding, would wait for each other for ever.
        if not trainer.strategy.reduce_boolean_decision(ends, all=False):
            return
        trainer.should_stop = True
        if trainer.is_global_zero:
            told = f"step {trainer.global_step}: {self.value} is {float(measured):.4g}"
            print(f"{told}, below {self.below:g}: the run ends.", file=sys.stderr)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says so where nothing was there to be judged."""
        if not self.judged and trainer.is_global_zero and trainer.global_step >= self.at_step:
            print(f"end_early never saw {self.value}; name online_knn before it in callbacks=[…].", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """Whether the run has been judged."""
        return {"judged": self.judged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A resumed run is not judged again."""
        self.judged = state_dict["judged"]
