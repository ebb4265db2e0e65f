"""What `ssl-video bench` measures, as plain numbers, and the arithmetic over them. Nothing here takes a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from scipy import stats

# The parts of a step in the order they happen, and their names for the reader.
LOADER_PARTS = {"storage": "storage", "decode": "decode", "transform": "transform", "collate": "collate"}
STEP_PARTS = {
    "transfer": "host to device",
    "finish": "finish on device",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "rest": "rest of the step",
}
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Round:
    """One block of measurements; all values are milliseconds per step, a step being one batch on one device.

    Attributes:
        loader: what making the batch costs one worker on one core, by part.
        step: what the rest of the step costs, by part, the device waited for after each.
        step_alone: a step on batches that are there, the device waited for only at the end of the block.
        whole: a step with the real loader.
        waited: of that, waiting for the loader.
    """

    loader: Mapping[str, float]
    step: Mapping[str, float]
    step_alone: float
    whole: float
    waited: float


@dataclass(frozen=True)
class Prepared:
    """What re-encoding the videos would give.

    Attributes:
        short_side: pixels.
        speed_up: of decoding.
        num_videos: on which it was measured; 0 where it is estimated.
    """

    short_side: int
    speed_up: float
    num_videos: int = 0


@dataclass(frozen=True)
class Circumstances:
    """What a measurement was taken of and on.

    Attributes:
        name: of the configuration, for headings.
        videos: of a batch on one device.
        clips: of a batch on one device.
        num_workers: decoding processes of one device; 0 decodes in the main process.
        cores: that one device's processes have.
        compute_threads: threads of the main process, where it computes on the CPU; 0 where a GPU computes.
        device: in words.
        augment_on: ``worker`` or ``device``.
        num_steps: batches of the whole run on one device.
        startup_seconds: until the end of the first step.
        num_devices: of the run; measured is one.
    """

    name: str
    videos: int
    clips: int
    num_workers: int
    cores: int
    compute_threads: int
    device: str
    augment_on: str
    num_steps: int
    startup_seconds: float
    num_devices: int = 1


@dataclass(frozen=True)
class Measured:
    """All that is known of one configuration.

    Attributes:
        circumstances: of what and on what.
        rounds: the blocks.
        bytes_per_video: read from storage for one sample.
        cold_share: of the files, those that were seen to be out of memory before they were read.
        flops: floating point operations of one step, forward and backward; None where they could not be counted.
        matrix_flops_per_second: what the device reaches in a large matrix product of the same precision.
        busy_share: of the end-to-end time in which the GPU computed or copied; None without one.
        prepared: what preparing the videos would give, where it was asked.
        failures: videos that could not be read while measuring.
    """

    circumstances: Circumstances
    rounds: Sequence[Round]
    bytes_per_video: float = 0.0
    cold_share: float = 1.0
    flops: int | None = None
    matrix_flops_per_second: float | None = None
    busy_share: float | None = None
    prepared: Prepared | None = None
    failures: int = 0

    @property
    def loader(self) -> dict[str, float]:
        """Milliseconds per step of one worker on one core, by part: medians over the blocks."""
        return {part: median(own.loader[part] for own in self.rounds) for part in LOADER_PARTS}

    @property
    def step(self) -> dict[str, float]:
        """Milliseconds per step by part: medians over the blocks."""
        return {part: median(own.step[part] for own in self.rounds) for part in STEP_PARTS}

    @property
    def loader_ms(self) -> float:
        """Making one batch on one core."""
        return sum(self.loader.values())

    @property
    def step_ms(self) -> float:
        """A step without the loader."""
        return median(own.step_alone for own in self.rounds)

    @property
    def whole_ms(self) -> float:
        """A step with the real loader."""
        return median(own.whole for own in self.rounds)

    @property
    def waited_ms(self) -> float:
        """Of that, waiting for the loader."""
        return median(own.waited for own in self.rounds)

    @property
    def lanes(self) -> int:
        """Workers that can decode at a time: no more than there are cores. At least 1, the main process."""
        return max(1, min(self.circumstances.num_workers, self.circumstances.cores))

    @property
    def delivery_ms(self) -> float:
        """A batch from all workers together."""
        return self.loader_ms / self.lanes

    @property
    def shared_ms(self) -> float:
        """A step if nothing but the number of cores held it back; 0 where a GPU computes."""
        own = self.circumstances
        return (self.loader_ms + self.step_ms * own.compute_threads) / own.cores if own.compute_threads else 0.0

    @property
    def predicted_ms(self) -> float:
        """A step with a loader, from the parts alone."""
        if self.circumstances.num_workers == 0:
            return self.loader_ms + self.step_ms
        return max(self.delivery_ms, self.step_ms, self.shared_ms)

    @property
    def run_hours(self) -> float:
        """The whole run at the measured end-to-end rate."""
        own = self.circumstances
        return (own.num_steps * self.whole_ms / 1000 + own.startup_seconds) / 3600

    @property
    def utilization(self) -> float | None:
        """Model FLOPs per second, end to end, over the device's measured matrix rate."""
        if not self.flops or not self.matrix_flops_per_second:
            return None
        return self.flops / (self.whole_ms / 1000) / self.matrix_flops_per_second

    def as_json(self) -> dict[str, Any]:
        """All of it, and what follows from it, as plain values."""
        content = asdict(replace(self, rounds=list(self.rounds)))
        medians = {
            "loader_ms_per_core": self.loader,
            "loader_total_ms_per_core": self.loader_ms,
            "loader_delivery_ms": self.delivery_ms,
            "step_ms": self.step,
            "step_alone_ms": self.step_ms,
            "whole_ms": self.whole_ms,
            "waited_ms": self.waited_ms,
            "predicted_ms": self.predicted_ms,
            "run_hours": self.run_hours,
            "model_flops_utilization": self.utilization,
        }
        return {**content, "medians": medians}


@dataclass(frozen=True)
class Ratio:
    """How many times as long the first configuration takes as the second.

    Attributes:
        value: geometric mean over pairs of blocks.
        low: end of its 95 % interval; nan with a single pair.
        high: the other end.
        num_pairs: blocks of each.
    """

    value: float
    low: float
    high: float
    num_pairs: int

    @property
    def is_clear(self) -> bool:
        """Whether the difference stands out of the noise."""
        return self.low > 1 or self.high < 1


def ratio(first: Sequence[float], second: Sequence[float]) -> Ratio | None:
    """Of two series measured in turns, pair by pair; None where one of them is nothing.

    Both blocks of a pair were taken right after each other, so what slows the machine for longer slows both. The
    interval is Student's over the logarithms of the pairs' ratios.
    """
    if min([*first, *second]) <= 0:
        return None
    logs = np.log(np.asarray(first) / np.asarray(second))
    center, number = float(logs.mean()), len(logs)
    if number < 2:
        return Ratio(math.exp(center), math.nan, math.nan, number)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, number - 1) * logs.std(ddof=1) / math.sqrt(number))
    return Ratio(math.exp(center), math.exp(center - reach), math.exp(center + reach), number)
