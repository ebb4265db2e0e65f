"""What the device does in a step: operations, its busy share, and what it could do."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssl_video.cli.bench_clock import StepClock


class FlopCount(pl.Callback):
    """Counts the operations of the first step."""

    def __init__(self) -> None:
        self.total = 0
        self._mode: FlopCounterMode | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        """Begins to count, once."""
        if self.total == 0:
            self._mode = FlopCounterMode(display=False)
            self._mode.__enter__()

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Has counted forward and backward."""
        if self._mode is not None:
            self.total = int(self._mode.get_total_flops())
            self.close()

    def close(self) -> None:
        """Stops counting."""
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None


class Busy(pl.Callback):
    """Records when the GPU does something while a clock measures; stands behind it."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock
        self.share: float | None = None
        self._profile: Any = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        """Begins and ends with the clock."""
        if self._profile is None and self.clock.is_measuring:
            self._profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self._profile.__enter__()
        elif self._profile is not None and not self.clock.is_measuring:
            self._profile.__exit__(None, None, None)
            self.share = min(1.0, covered(_on_device(self._profile.events())) / 1e6 / self.clock.whole_seconds)


def _on_device(events: Iterable[Any]) -> Iterator[tuple[float, float]]:
    """Begin and end, in microseconds, of kernels and copies; named ranges also span what lies between these."""
    for event in events:
        if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False):
            yield event.time_range.start, event.time_range.end


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of some intervals: kernels of several streams overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def matrix_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """What a device reaches in a large square matrix product: the best of a few."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
