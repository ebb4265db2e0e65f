"""The times of a training step, taken by a callback and at the doors of the data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch

from ssl_video.cli.bench_rounds import STEP_PARTS
from ssl_video.data.datamodule import VideoDataModule

# A batch that is there takes a millisecond to come out of the queue.
DRY_SECONDS = 0.02


@dataclass(frozen=True)
class Limits:
    """How long to measure.

    Attributes:
        warm_up: steps before the clock starts, or fewer when ``seconds`` are over.
        steps: to be measured, or fewer when as many seconds are over again, but one at least.
        seconds: see there.
        multiple: measured are so many steps, or twice, three times … as many (gradient accumulation).
        burst: batches that a loader slower than the step delivers at about the same time, one from each worker; 0 where
            the batches are there. Then the clock starts only when the queue is dry, or ``warm_up`` steps are done, and
            whole bursts are measured, whatever they take: what was made ahead says nothing of the rate.
    """

    warm_up: int
    steps: int
    seconds: float
    multiple: int = 1
    burst: int = 0


@dataclass
class StepTimes:
    """One measurement, in milliseconds per step.

    Attributes:
        parts: by name; empty where the device was not waited for between them.
        whole: from step to step, everything in it.
        waited: of that, for the batch.
        startup_seconds: from the call to the end of the first step.
        num_steps: that were measured.
    """

    parts: dict[str, float]
    whole: float
    waited: float
    startup_seconds: float
    num_steps: int


@dataclass
class StepClock(pl.Callback):
    """Takes the times of a fit and ends it.

    Args:
        limits: when.
        wait: makes the device finish; nothing on a CPU.
        by_part: wait after each part, so that each is charged its own time; else only before the first measured step
            and after the last.
    """

    limits: Limits
    wait: Callable[[], None]
    by_part: bool
    seconds: dict[str, float] = field(default_factory=dict)
    num_steps: int = 0
    startup_seconds: float = 0.0
    whole_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._called = self._mark = self._started = self._began = time.perf_counter()
        self._seen = 0
        self._last_wait = 0.0
        self._measures = False

    @property
    def is_measuring(self) -> bool:
        """Whether this step counts."""
        return self._measures

    def received(self, seconds: float) -> None:
        """Takes note of a batch that was waited for so long."""
        self._last_wait = seconds
        self.add("waited", seconds)

    def add(self, part: str, seconds: float) -> None:
        """Charges a part with what was taken elsewhere."""
        if self._measures:
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def now(self) -> float:
        """The time, when the device has done what it was told, if parts are told apart."""
        if self.by_part:
            self.wait()
        return time.perf_counter()

    def _charge(self, part: str) -> None:
        now = self.now()
        self.add(part, now - self._mark)
        self._mark = now

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        """The batch is there."""
        self._mark = self.now()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Any) -> None:
        """The losses are there."""
        self._charge("forward")

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The gradients are there."""
        self._charge("backward")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        """Optimizer and schedule are done; begins to measure, or ends."""
        self._charge("optimizer")
        self._seen += 1
        if self._seen == 1:
            self.wait()
            self._started = time.perf_counter()
            self.startup_seconds = self._started - self._called
        if self._measures:
            self.num_steps += 1
            if self._has_enough():
                self.wait()
                self.whole_seconds = time.perf_counter() - self._began
                self._measures = False
                trainer.should_stop = True
        elif self._is_warm() and not trainer.should_stop:
            self.wait()
            self._began = time.perf_counter()
            self._measures = True

    def _is_warm(self) -> bool:
        if self._seen % self.limits.multiple:
            return False
        if self._seen >= self.limits.warm_up:
            return True
        if self.limits.burst:
            # The first batch is always waited for.
            return self._seen > 1 and self._last_wait > DRY_SECONDS
        return time.perf_counter() - self._started > self.limits.seconds

    def _has_enough(self) -> bool:
        if self.num_steps % math.lcm(self.limits.multiple, self.limits.burst or 1):
            return False
        return self.num_steps >= self.limits.steps or time.perf_counter() - self._began > self.limits.seconds

    def times(self) -> StepTimes:
        """What was measured.

        Raises:
            RuntimeError: the fit ended before.
        """
        if not self.whole_seconds:
            raise RuntimeError("the training ended before a step was measured.")
        number = self.num_steps
        waited = self.seconds.pop("waited", 0.0)
        parts = dict.fromkeys(STEP_PARTS, 0.0) | self.seconds
        parts["rest"] = max(0.0, self.whole_seconds - waited - sum(self.seconds.values()))
        return StepTimes(
            parts={name: 1000 * value / number for name, value in parts.items()} if self.by_part else {},
            whole=1000 * self.whole_seconds / number,
            waited=1000 * waited / number,
            startup_seconds=self.startup_seconds,
            num_steps=number,
        )


class TimedData(pl.LightningDataModule):
    """The run's data module with other batches, and a clock at each of its doors.

    Args:
        datamodule: whose way to the device is taken.
        batches: to train on.
        clock: that is told.
    """

    def __init__(self, datamodule: VideoDataModule, batches: Iterable[Any], clock: StepClock) -> None:
        super().__init__()
        self.own = datamodule
        self.clock = clock
        self._batches = _Timed(batches, clock)

    def batches_per_epoch(self, num_processes: int) -> int:
        """Those of the run."""
        return self.own.batches_per_epoch(num_processes)

    def train_dataloader(self) -> Iterable[Any]:
        """The batches; waiting for each is timed."""
        return self._batches

    def close(self) -> None:
        """Lets go of the batches, and so ends a loader's workers: the trainer hangs on a ring of objects."""
        self._batches.close()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """As in the run."""
        started = self.clock.now()
        moved = self.own.transfer_batch_to_device(batch, device, dataloader_idx)
        self.clock.add("transfer", self.clock.now() - started)
        return moved

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """As in the run."""
        started = self.clock.now()
        finished = self.own.on_after_batch_transfer(batch, dataloader_idx)
        self.clock.add("finish", self.clock.now() - started)
        return finished


class _Timed:
    """Batches that say how long they were waited for."""

    def __init__(self, batches: Iterable[Any], clock: StepClock) -> None:
        self.batches = batches
        self.clock = clock
        self._given: Generator[Any, None, None] | None = None

    def __iter__(self) -> Iterator[Any]:
        self._given = self._timed()
        return self._given

    def _timed(self) -> Generator[Any, None, None]:
        iterator = iter(self.batches)
        while True:
            started = self.clock.now()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.clock.received(time.perf_counter() - started)
            yield batch

    def close(self) -> None:
        self.batches = ()
        if self._given is not None:
            self._given.close()
