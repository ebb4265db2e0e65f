"""What loggers get of each step."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from ssl_video.callbacks.each_step import EachStep

LOGGED = ("train/", "data/", "health/", "val/", "time/")
AT_ONCE = ("health/", "val/")  # measured now and then, so not to be missed


class StepLogging(EachStep):
    """Hands the values of a step to the trainer's loggers, every ``trainer.log_every_n_steps`` optimizer steps.

    Methods and callbacks leave them in ``trainer.callback_metrics``; see ``SSLMethod``. Without a logger it costs
    nothing, where Lightning's own way costs each name half a millisecond in every step.
    """

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, step: int) -> None:
        """Logs a step that is due, and the last one."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = bool(every) and (step % every == 0 or step == pl_module.total_steps)
        due = due or any(name.startswith(AT_ONCE) for name in trainer.callback_metrics)
        if not trainer.loggers or not due:
            return
        values = {
            name: float(value) if isinstance(value, Tensor) else value
            for name, value in trainer.callback_metrics.items()
            if name.startswith(LOGGED)
        }
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": batch.epoch}, step=step - 1)
            logger.save()
