"""What samplers noted of their draws, such as a missing motion table: counted over the run and told at its end."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytorch_lightning as pl

from ssl_video.data.batch import ClipBatch


class SamplerFlags(pl.Callback):
    """Counts the flags of all training samples of this process (of the first one, where there are several).

    The counts are part of the checkpoint, so that a resumed run's are those of the whole run.

    Attributes:
        samples: samples seen.
        counts: how many of them carry each flag.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.counts: Counter[str] = Counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        """Adds one batch."""
        self.samples += len(batch)
        self.counts.update(batch.flags)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says what there was, on standard error."""
        if self.counts and trainer.is_global_zero:
            told = ", ".join(f"{flag} {count}" for flag, count in self.counts.most_common())
            print(f"The sampler noted, in {self.samples} samples: {told}.", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """Counts so far."""
        return {"samples": self.samples, "counts": dict(self.counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting from those of the checkpoint."""
        self.samples = state_dict["samples"]
        self.counts = Counter(state_dict["counts"])
