"""Ends a run whose values crossed a bar with ``action=stop``."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from ssl_video.callbacks.health import Health
from ssl_video.callbacks.save_checkpoint import SaveCheckpoint
from ssl_video.utils.distributed import gather_objects
from ssl_video.utils.errors import RunFault
from ssl_video.utils.kept import LAST


class EndUnhealthy(pl.Callback):
    """Ends it between two steps, on all processes, behind what writes the step's row and checkpoint.

    A checkpoint of before is kept as it is: it is healthier than the present state. Where there is none yet, the
    present state is written.

    Args:
        health: that watches.
        save_checkpoint: of the run.
    """

    def __init__(self, health: Health, save_checkpoint: SaveCheckpoint) -> None:
        self.health = health
        self.save_checkpoint = save_checkpoint

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends the run if it is to end.

        Raises:
            RunFault: with the reason, on the first process.
        """
        if self.health.unhealthy is None:
            return
        if not gather_objects((self.save_checkpoint.folder / LAST).exists())[0]:
            self.save_checkpoint.save(trainer, pl_module)
        raise RunFault(f"The run ends: {self.health.unhealthy}" if trainer.is_global_zero else "")
