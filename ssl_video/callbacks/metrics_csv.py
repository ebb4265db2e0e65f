"""``metrics.csv``: one row per optimizer step, each step exactly once, whatever was interrupted; and ``times.csv``."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from ssl_video.callbacks.each_step import EachStep
from ssl_video.utils.files import write_atomically

# What training computes: the same again from the same seed, also when it was interrupted.
COMPUTED = ("train/", "health/", "val/")
# What the machine made of it, in the steps in which that was measured.
MEASURED = ("time/", "data/")
LOSS = "train/loss"  # stands first


class MetricsCSV(EachStep):
    """Appends ``epoch, step`` and the values of some names; written with each checkpoint.

    Rows are held back until a checkpoint is written, so the file never runs ahead of what a resume starts from by more
    than the rows that the resume drops.

    Args:
        path: the file; on a resume its rows at or beyond the checkpoint's next step are dropped.
        kept: how the names begin.
        only_with: how a name begins without which a step has no row; None writes every step.
    """

    def __init__(self, path: Path, *, kept: tuple[str, ...] = COMPUTED, only_with: str | None = None) -> None:
        self.path = path
        self.kept = kept
        self.only_with = only_with
        self._rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drops what a killed run wrote after its last checkpoint."""
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero and self.path.exists():
            self._write([row for row in self._read() if int(row["step"]) < trainer.global_step])

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, step: int) -> None:
        """Keeps the step's values as tensors: reading them now would wait for the device."""
        values = {name: value for name, value in trainer.callback_metrics.items() if name.startswith(self.kept)}
        if self.only_with is not None and not any(name.startswith(self.only_with) for name in values):
            return
        self._rows.append({"epoch": batch.epoch, "step": step - 1, **values})

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Writes the rows that the checkpoint will not repeat; where they cannot be, it is not written either.

        Raising here would leave the other ranks at the barrier that follows.
        """
        try:
            self._flush(trainer)
        except OSError as fault:
            checkpoint_io: Any = trainer.strategy.checkpoint_io
            checkpoint_io.fault = fault

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes what is left."""
        self._flush(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Writes what is left: the last steps before a fault are the ones to look at."""
        self._flush(trainer)

    def _flush(self, trainer: pl.Trainer) -> None:
        """Writes the rows that are held back; what a full disk refuses is held back further."""
        rows = [
            {name: value.item() if isinstance(value, Tensor) else value for name, value in row.items()}
            for row in self._rows
        ]
        if rows and trainer.is_global_zero:
            header = self._header()
            if header is None or any(name not in header for row in rows for name in row):
                self._write([*(self._read() if header else []), *rows])
            else:
                self._append(rows, header)
        self._rows.clear()

    def _append(self, rows: list[dict[str, Any]], header: list[str]) -> None:
        whole = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, header, restval="").writerows(rows)
                file.flush()
                os.fsync(file.fileno())  # before the checkpoint that does not repeat them
        except OSError:
            os.truncate(self.path, whole)
            raise

    def _header(self) -> list[str] | None:
        if not self.path.exists():
            return None
        with self.path.open(newline="") as file:
            return next(csv.reader(file), None)

    def _read(self) -> list[dict[str, Any]]:
        with self.path.open(newline="") as file:
            # A kill in the middle of an append leaves half a line; it has no step or too few values.
            return [row for row in csv.DictReader(file) if row.get("step") and None not in row.values()]

    def _write(self, rows: list[dict[str, Any]]) -> None:
        names = sorted({name for row in rows for name in row} - {"epoch", "step", LOSS})
        header = ["epoch", "step", *([LOSS] if LOSS.startswith(self.kept) else []), *names]

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, header, restval="")
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.path, write)
