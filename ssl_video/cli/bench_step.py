"""Trains a method for a few steps at a time: the real trainer, method and optimizer, on one device."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from ssl_video.callbacks.metrics_csv import MetricsCSV
from ssl_video.callbacks.step_logging import StepLogging
from ssl_video.cli.bench_clock import Limits, StepClock, StepTimes, TimedData
from ssl_video.cli.bench_device import Busy, FlopCount
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.errors import Terminated

# What a run has in every step; those that count, print, and write checkpoints and faults have no place here.
_KEPT = (MetricsCSV, StepLogging)
MakeTrainer = Callable[[Path], pl.Trainer]


class StepMeter:
    """Trains a method for a few steps at a time.

    Args:
        method: of the run.
        datamodule: of the run.
        make_trainer: builds the run's trainer on one device; it may write into the folder it is given.
        on_gpu: whether that device is a GPU.
    """

    def __init__(
        self, method: SSLMethod[Any], datamodule: VideoDataModule, *, make_trainer: MakeTrainer, on_gpu: bool
    ) -> None:
        self.method = method
        self.datamodule = datamodule
        self.make_trainer = make_trainer
        self.on_gpu = on_gpu

    def measure(
        self, batches: Iterable[Any], limits: Limits, *, by_part: bool, watch: Iterable[pl.Callback] = ()
    ) -> StepTimes:
        """Times steps on some batches, which must not run out before the limits.

        Args:
            batches: as the loader gives them.
            limits: when to end.
            by_part: tell the parts apart, for which a GPU is made to wait after each.
            watch: further callbacks.
        """
        clock = StepClock(limits, self._wait, by_part)
        self._fit(batches, clock, watch)
        return clock.times()

    def synthetic(self, batches: list[Any]) -> Iterator[Any]:
        """The same batches for ever, page-locked where the loader's would be."""
        pinned = [batch.pin_memory() for batch in batches] if self.on_gpu else batches
        return itertools.cycle(pinned)

    def count_flops(self, batches: list[Any]) -> int | None:
        """Floating point operations of a step's forward and backward; None where torch cannot count them."""
        counter = FlopCount()
        try:
            self.measure(self.synthetic(batches), Limits(0, 1, 0.0), by_part=False, watch=[counter])
        except Exception:  # compiled networks and operators of other libraries; a figure less, not a fault
            counter.close()
            return None
        return counter.total or None

    def busy_share(self, batches: Iterable[Any], limits: Limits) -> float | None:
        """Share of the time in which the GPU computes or copies while training on these batches."""
        if not self.on_gpu:
            return None
        clock = StepClock(limits, self._wait, by_part=False)
        watch = Busy(clock)
        self._fit(batches, clock, [watch])
        return watch.share

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def _fit(self, batches: Iterable[Any], clock: StepClock, watch: Iterable[pl.Callback]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.make_trainer(Path(folder))
            kept = [callback for callback in trainer.callbacks if isinstance(callback, _KEPT)]  # type: ignore[attr-defined]
            trainer.callbacks = [clock, *watch, *kept]  # type: ignore[attr-defined]
            data = TimedData(self.datamodule, batches, clock)
            try:
                trainer.fit(self.method, datamodule=data)
            except SystemExit as end:  # Lightning's answer to SIGTERM, and to Ctrl-C
                raise (Terminated() if isinstance(end, SIGTERMException) else KeyboardInterrupt()) from None
            finally:
                data.close()
