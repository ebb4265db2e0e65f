"""Videos that fail while training: counted, written down by name, and an error above a stated share."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ssl_video.data.batch import ClipBatch, Failure


class DecodeFailures(pl.Callback):
    """Logs ``data/decode_failures``, appends each video to a CSV, and ends the run above ``max_share``.

    Args:
        path: the CSV (``step, path, reason``); made when the first video fails.
        max_share: of all samples so far; looked at from ``min_samples`` samples on.
        paths: path of each row of the manifest.
        min_samples: fewer samples say too little about a share.
    """

    def __init__(self, path: Path, *, max_share: float, paths: list[str], min_samples: int = 200) -> None:
        self.path = path
        self.max_share = max_share
        self.paths = paths
        self.min_samples = min_samples
        self.samples = 0
        self.failures = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        """Counts one batch's failures.

        Raises:
            RuntimeError: too many.
        """
        self.samples += len(batch)
        self.failures += len(batch.failures)
        pl_module.log("data/decode_failures", float(self.failures))
        if batch.failures:
            self._append(trainer.global_step, batch.failures)
        if self.samples >= self.min_samples and self.failures > self.max_share * self.samples:
            raise RuntimeError(
                f"{self.failures} of {self.samples} samples could not be decoded, above "
                f"dataset.max_unreadable_share={self.max_share}; they are listed in {self.path.name} of the run folder."
            )

    def _append(self, step: int, failures: tuple[Failure, ...]) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "path", "reason"])
            writer.writerows([step, self.paths[failure.row], failure.reason] for failure in failures)
