"""How fast a run goes, what it waits for, and what it takes."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch

from ssl_video.utils.run import peak_memory_bytes

GIB = 2**30


class Throughput:
    """Clips and waiting between two looks.

    Args:
        trainer: of the run.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self.trainer = trainer
        self._clips = 0
        self._began = time.perf_counter()
        self._waited = self._waited_so_far()

    def add(self, num_clips: int) -> None:
        """Counts a batch of this process."""
        self._clips += num_clips

    def restart(self) -> None:
        """Begins anew: what a first step takes says nothing of the others."""
        self._clips, self._began, self._waited = 0, time.perf_counter(), self._waited_so_far()

    def look(self) -> dict[str, float]:
        """``time/`` values since the last look; everything that a run does counts, not its steps alone."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        values = {
            "clips_per_second": self._clips * self.trainer.world_size / seconds,
            "data_wait_share": (self._waited_so_far() - self._waited) / seconds,
            "peak_memory_gib": peak_memory_bytes() / GIB,
            **gpu_values(self.trainer.strategy.root_device),
        }
        self.restart()
        return values

    def _waited_so_far(self) -> float:
        loader: Any = self.trainer.train_dataloader
        return float(getattr(loader, "waited_seconds", 0.0))


def gpu_values(device: torch.device) -> dict[str, float]:
    """Share of the last second or so in which a GPU computed, by its driver, and the most memory taken on it."""
    if device.type != "cuda":
        return {}
    values = {"peak_gpu_memory_gib": torch.cuda.max_memory_allocated(device) / GIB}
    try:
        values["gpu_busy_share"] = torch.cuda.utilization(device) / 100
    except Exception:  # no library that asks the driver, or a driver that does not tell; a figure less, not a fault
        return values
    return values
