"""Videos that fail while training: counted, written down by name, and an error above a stated share."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ssl_video.data.batch import ClipBatch, Failure

RECYCLED = "recycled"
VIDEOS_ON_SCREEN = 20


class DecodeFailures(pl.Callback):
    """Logs how reading goes, appends each video that fails to a CSV, and ends the run above ``max_share``.

    Logged are, of this process since its start (of the first one, where there are several), ``data/decode_failures``,
    and once there are any ``data/decode_restarts`` (decoding processes that were lost) and ``data/decode_recycles``
    (those that had grown too large).

    Args:
        path: the CSV (``step, path, reason``); made when the first video fails.
        max_share: of all samples so far; looked at from ``min_samples`` samples on.
        path_of: path of a row of the manifest.
        keep: puts a row into quarantine, with the reason; asked once for each row. None keeps nothing.
        min_samples: fewer samples say too little about a share.
        samples_per_open: samples made of each opening of a video; a video that fails is told with the first only.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_share: float,
        path_of: Callable[[int], str],
        keep: Callable[[int, str], object] | None = None,
        min_samples: int = 200,
        samples_per_open: int = 1,
    ) -> None:
        self.path = path
        self.max_share = max_share
        self.path_of = path_of
        self.keep = keep
        self.min_samples = min_samples
        self.samples_per_open = samples_per_open
        self.samples = 0
        self.failures = 0
        self.restarts: Counter[str] = Counter()
        self._times: Counter[int] = Counter()
        self._reasons: dict[int, str] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        """Counts one batch's failures.

        Raises:
            RuntimeError: too many.
        """
        self.samples += len(batch)
        self.failures += len(batch.failures)
        self.restarts.update(batch.restarts)
        counts = {"failures": self.failures}
        if self.restarts:
            recycles = self.restarts[RECYCLED]
            counts |= {"restarts": self.restarts.total() - recycles, "recycles": recycles}
        # Not by pl_module.log, which takes half a millisecond for each; StepLogging hands them to the loggers.
        trainer.callback_metrics.update(
            {f"data/decode_{name}": torch.tensor(float(count)) for name, count in counts.items()}
        )
        if batch.failures:
            self._append(trainer.global_step, batch.failures)
            self._remember(batch.failures)
        lost = self.failures * self.samples_per_open
        if self.samples >= self.min_samples and lost > self.max_share * self.samples:
            raise RuntimeError(
                f"{lost} of {self.samples} samples could not be decoded, above "
                f"dataset.max_unreadable_share={self.max_share}. Mend or remove these videos, or raise that share:\n"
                f"{self._listed()}\nAll are listed in {self.path.name} of the run folder."
            )

    def _append(self, step: int, failures: tuple[Failure, ...]) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "path", "reason"])
            writer.writerows([step, self.path_of(failure.row), failure.reason] for failure in failures)

    def _remember(self, failures: tuple[Failure, ...]) -> None:
        for failure in failures:
            if failure.row not in self._reasons and self.keep is not None:
                try:
                    self.keep(failure.row, failure.reason)
                except OSError as fault:  # a full disk, or one that is only read: no reason to end a run
                    print(f"The quarantine cannot be written: {fault}", file=sys.stderr)
                    self.keep = None
            self._reasons[failure.row] = failure.reason
            self._times[failure.row] += 1

    def _listed(self) -> str:
        """The videos that failed most often, with the last reason of each."""
        lines = [
            f"  {self.path_of(row)}: {self._reasons[row]}" + (f" ({times} times)" if times > 1 else "")
            for row, times in self._times.most_common(VIDEOS_ON_SCREEN)
        ]
        more = len(self._times) - len(lines)
        return "\n".join([*lines, f"  … and {more} more"] if more else lines)
