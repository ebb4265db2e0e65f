"""``checkpoints/last.ckpt`` every few steps, and the backbone alone beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ssl_video.utils.checkpoint import save_backbone


def raise_fault(trainer: pl.Trainer) -> None:
    """Raises what kept the checkpoint from being written, now that all ranks are past it."""
    fault = getattr(trainer.strategy.checkpoint_io, "fault", None)
    if fault is not None:
        raise fault


class SaveCheckpoint(pl.Callback):
    """Writes the whole state and the backbone, at the end of a step only, so that both are of one step.

    Args:
        folder: the run's ``checkpoints`` folder.
        every_steps: optimizer steps between two checkpoints; the last step is always written.
        config: the composed configuration, as plain data; kept in the checkpoint.
        backbone_config: what rebuilds the backbone and its input; kept beside its weights.
    """

    def __init__(
        self, folder: Path, *, every_steps: int, config: dict[str, Any], backbone_config: dict[str, Any]
    ) -> None:
        self.folder = folder
        self.every_steps = every_steps
        self.config = config
        self.backbone_config = backbone_config
        self._saved_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is resumed need not be saved again."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when the step is due and has not been saved."""
        step = trainer.global_step
        due = step % self.every_steps == 0 or step == pl_module.total_steps
        if not due or step == self._saved_step:
            return
        self._saved_step = step
        try:
            trainer.save_checkpoint(self.folder / "last.ckpt")
            raise_fault(trainer)
            if trainer.is_global_zero:
                state: Any = pl_module.backbone
                save_backbone(self.folder / "backbone.safetensors", state.state_dict(), config=self.backbone_config)
        except OSError as fault:
            if step == pl_module.total_steps:
                raise
            # A disk that is full for an hour must not cost the run; the checkpoint before is intact.
            print(
                f"The checkpoint of step {step} could not be written ({fault}); the one before is kept, and the next "
                f"try is in {self.every_steps} steps. Free some space in {self.folder}.",
                file=sys.stderr,
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the configuration, so that the file explains itself."""
        checkpoint["config"] = self.config
        checkpoint["backbone_config"] = self.backbone_config
