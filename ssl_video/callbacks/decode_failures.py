"""Videos that fail while training: counted, written down by name, and an error above a stated share."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ssl_video.data.batch import ClipBatch, Failure
from ssl_video.utils.csv_file import append_rows
from ssl_video.utils.distributed import gather_objects, rank, world_size
from ssl_video.utils.errors import RunFault

RECYCLED = "recycled"
VIDEOS_ON_SCREEN = 20


@dataclass
class _News:
    """What one process has met since the processes last told each other."""

    samples: int = 0
    failures: list[tuple[int, Failure]] = field(default_factory=list)  # each with its step
    restarts: Counter[str] = field(default_factory=Counter)


class DecodeFailures(pl.Callback):
    """Logs how reading goes, appends each video that fails to a CSV, and ends the run above ``max_share``.

    Logged are, of all processes since the start, ``data/decode_failures``, and once there are any
    ``data/decode_restarts`` (decoding processes that were lost) and ``data/decode_recycles`` (those that had grown too
    large).

    Several processes tell each other every ``agree_every_batches`` batches, whether or not anything failed: so all take
    part, all come to the same share, and all end together. The first one writes the CSV. A process that is ended by
    something else adds what it had not told yet.

    Args:
        path: the CSV (``step, path, reason``); made when the first video fails.
        max_share: of all samples so far; looked at from ``min_samples`` samples on.
        path_of: path of a row of the manifest.
        keep: puts a row into quarantine, with the reason; asked once for each row by each process that met it. None
            keeps nothing.
        min_samples: fewer samples say too little about a share.
        samples_per_open: samples made of each opening of a video; a video that fails is told with the first only.
        agree_every_batches: see above; one process needs no agreement and acts at once.
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
        agree_every_batches: int = 50,
    ) -> None:
        self.path = path
        self.max_share = max_share
        self.path_of = path_of
        self.keep = keep
        self.min_samples = min_samples
        self.samples_per_open = samples_per_open
        self.agree_every_batches = agree_every_batches
        self.samples = 0
        self.failures = 0
        self.restarts: Counter[str] = Counter()
        self._news = _News()
        self._batches = 0
        self._kept: set[int] = set()
        self._times: Counter[int] = Counter()
        self._reasons: dict[int, str] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        """Counts one batch's failures.

        Raises:
            RunFault: too many.
        """
        self._news.samples += len(batch)
        self._news.failures += [(trainer.global_step, failure) for failure in batch.failures]
        self._news.restarts.update(batch.restarts)
        self._keep(batch.failures)
        self._batches += 1
        if world_size() == 1 or self._batches % self.agree_every_batches == 0:
            self._agree()
            self._end_if_too_many()
        # Not by pl_module.log, which takes half a millisecond for each; StepLogging hands them to the loggers.
        trainer.callback_metrics.update(
            {f"data/decode_{name}": torch.tensor(float(count)) for name, count in self._counts().items()}
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes what the last batches met; a run that is done is not ended for it."""
        self._agree()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Writes what was not told yet: the other processes may not be there any more."""
        self._append(self._news.failures)
        self._news = _News()

    def _counts(self) -> dict[str, int]:
        counts = {"failures": self.failures}
        if self.restarts:
            recycles = self.restarts[RECYCLED]
            counts |= {"restarts": self.restarts.total() - recycles, "recycles": recycles}
        return counts

    def _agree(self) -> None:
        """Adds up the news of all processes; all of them come here."""
        told = gather_objects(self._news)
        self._news = _News()
        for news in told:
            self.samples += news.samples
            self.failures += len(news.failures)
            self.restarts.update(news.restarts)
            for _, failure in news.failures:
                self._reasons[failure.row] = failure.reason
                self._times[failure.row] += 1
        if rank() == 0:
            self._append([one for news in told for one in news.failures])

    def _end_if_too_many(self) -> None:
        lost = self.failures * self.samples_per_open
        if self.samples < self.min_samples or lost <= self.max_share * self.samples:
            return
        if rank() > 0:
            raise RunFault
        raise RunFault(
            f"{lost} of {self.samples} samples could not be decoded, above "
            f"dataset.max_unreadable_share={self.max_share}. Mend or remove these videos, or raise that share:\n"
            f"{self._listed()}\nAll are listed in {self.path.name} of the run folder."
        )

    def _append(self, failures: Sequence[tuple[int, Failure]]) -> None:
        if failures:
            rows = [(step, self.path_of(failure.row), failure.reason) for step, failure in failures]
            append_rows(self.path, ("step", "path", "reason"), rows)

    def _keep(self, failures: tuple[Failure, ...]) -> None:
        for failure in failures:
            if failure.row not in self._kept and self.keep is not None:
                try:
                    self.keep(failure.row, failure.reason)
                except OSError as fault:  # a full disk, or one that is only read: no reason to end a run
                    print(f"The quarantine cannot be written: {fault}", file=sys.stderr)
                    self.keep = None
            self._kept.add(failure.row)

    def _listed(self) -> str:
        """The videos that failed most often, with the last reason of each."""
        lines = [
            f"  {self.path_of(row)}: {self._reasons[row]}" + (f" ({times} times)" if times > 1 else "")
            for row, times in self._times.most_common(VIDEOS_ON_SCREEN)
        ]
        more = len(self._times) - len(lines)
        return "\n".join([*lines, f"  … and {more} more"] if more else lines)
