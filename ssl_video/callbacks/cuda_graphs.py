"""Tells torch where a step begins whose kernels are replayed."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch


class CudaGraphSteps(pl.Callback):
    """Marks the start of each batch, from which on the outputs of the one before may be written over."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Marks it."""
        torch.compiler.cudagraph_mark_step_begin()
