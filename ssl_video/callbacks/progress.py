"""How far the run is: a bar on a terminal, else one plain line per half minute."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

from ssl_video.data.batch import ClipBatch

SECONDS_BETWEEN_LINES = 30.0


class Progress(pl.Callback):
    """Step, loss, clips per second and the time left, on rank 0."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._clips = 0
        self._start = 0.0
        self._first_step = 0
        self._last_line = 0.0
        self._seen_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._start = self._last_line = time.monotonic()
        self._first_step = self._seen_step = trainer.global_step
        if trainer.is_global_zero and sys.stderr.isatty():
            self._bar = tqdm(
                total=pl_module.total_steps, initial=trainer.global_step, desc="pre-train", unit="step", leave=True
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        """Moves the bar, or writes a line when it is time."""
        self._clips += batch.num_clips * trainer.world_size
        now = time.monotonic()
        rate = self._clips / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._seen_step)
            self._seen_step = trainer.global_step
            if trainer.global_step % 10 == 0:
                loss = float(trainer.callback_metrics["train/loss"])
                self._bar.set_postfix_str(f"loss {loss:.3f}, {rate:.0f} clips/s")
        elif trainer.is_global_zero and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(self._line(trainer, pl_module, now, rate), file=sys.stderr, flush=True)

    def _line(self, trainer: pl.Trainer, pl_module: pl.LightningModule, now: float, rate: float) -> str:
        done, total = trainer.global_step, int(str(pl_module.total_steps))
        left = (now - self._start) / max(done - self._first_step, 1) * (total - done)
        loss = float(trainer.callback_metrics["train/loss"])
        return f"step {done}/{total}, loss {loss:.3f}, {rate:.0f} clips/s, {left / 60:.1f} min left"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Closes the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leaves the terminal clean."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
