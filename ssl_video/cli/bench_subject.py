"""One configuration under measurement: its real method, data, loader and trainer, built as for a run."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from ssl_video.cli.bench_clock import Limits, StepTimes
from ssl_video.cli.bench_device import matrix_flops_per_second
from ssl_video.cli.bench_loader import LoaderMeter, LoaderTimes, clip_batches
from ssl_video.cli.bench_prepared import measured_or_estimated
from ssl_video.cli.bench_rounds import Circumstances, Prepared
from ssl_video.cli.bench_step import StepMeter
from ssl_video.cli.parts import (
    PROVIDED,
    TrainSettings,
    build_checked,
    build_reader,
)
from ssl_video.cli.strategies import num_processes
from ssl_video.cli.trainer import build_trainer, total_steps
from ssl_video.data.decoding.decoder import DirectDecoder
from ssl_video.utils.config import compose_checked
from ssl_video.utils.run import Job

PREFETCHED = 2  # batches that a worker makes ahead: torch's default, and the loader's
NEARLY = 0.8  # of the step's pace: such a loader may turn out to be the slower one when both are at work
# No run is so short that measuring must end with it.
_FEWEST_STEPS = 100_000


def compose(overrides: Sequence[str]) -> DictConfig:
    """The configuration that ``train.py`` would run.

    Raises:
        InputError: lists its faults.
    """
    return compose_checked("train", list(overrides), provided=PROVIDED, settings=TrainSettings)


class Subject:
    """Builds a training job and measures one thing at a time, each call on other videos of the run's order.

    Args:
        config: composed and checked.
        name: in headings.
        start: at which part of an epoch to begin, so that two subjects do not read the same files one after the other.

    Raises:
        InputError: what the run itself would refuse.
    """

    def __init__(self, config: DictConfig, *, name: str, start: float = 0.0) -> None:
        started = time.perf_counter()
        self.name = name
        self.config = config
        self.method, self.datamodule = build_checked(self.config)
        self.num_steps = total_steps(self.config, self.datamodule) * self.config.trainer.accumulate_grad_batches
        with tempfile.TemporaryDirectory() as folder:
            self._make_trainer(Path(folder))  # a device that is not there is refused now
        self.threads = torch.get_num_threads()
        self.on_gpu = self.config.trainer.accelerator == "gpu"
        self.num_devices = num_processes(self.config)
        repeats = self.datamodule.clips_per_open
        openings = self.datamodule.batches_per_epoch(1) // repeats
        self._next_batch = int(start * openings) * repeats
        self._batches: list[Any] = []
        self._direct = DirectDecoder(build_reader(self.config))
        self._loader = LoaderMeter(self.datamodule, direct=self._direct)
        self._step = StepMeter(self.method, self.datamodule, make_trainer=self._make_trainer, on_gpu=self.on_gpu)
        self._build_seconds = time.perf_counter() - started
        self._first_step_seconds = self._delivery_ms = self._step_ms = 0.0

    def measure_loader(self, *, steps: int, seconds: float) -> LoaderTimes:
        """The loader's parts, on one core."""
        times = self._loader.measure(self._take(steps), batches=steps, seconds=seconds)
        self._batches = times.batches
        self._delivery_ms = sum(times.parts.values()) / max(1, min(self.datamodule.num_workers, available_cores()))
        return times

    def measure_step(self, *, steps: int, seconds: float) -> StepTimes:
        """A step without the loader; by part, and as a whole without waiting for the device in between."""
        torch.set_num_threads(self.threads)
        limits = Limits(5 if self.on_gpu else 2, steps, seconds / (2 if self.on_gpu else 1), self._multiple)
        parts = self._step.measure(self._step.synthetic(self._batches), limits, by_part=True)
        self._step_ms = parts.whole
        if not self.on_gpu:
            return parts
        alone = self._step.measure(self._step.synthetic(self._batches), limits, by_part=False)
        self._step_ms = alone.whole
        return StepTimes(parts.parts, alone.whole, alone.waited, alone.startup_seconds, alone.num_steps)

    def measure_whole(self, *, steps: int, seconds: float) -> StepTimes:
        """Steps with the real loader, after its queue has come to its usual length."""
        torch.set_num_threads(self.threads)
        batches, limits = self._real(steps, seconds)
        times = self._step.measure(batches, limits, by_part=False)
        self._first_step_seconds = self._first_step_seconds or times.startup_seconds
        return times

    def busy_share(self, *, steps: int, seconds: float) -> float | None:
        """Share of the end-to-end time in which the GPU does something."""
        if not self.on_gpu:
            return None
        return self._step.busy_share(*self._real(steps, seconds))

    def count_flops(self) -> int | None:
        """Operations of one step, forward and backward."""
        torch.set_num_threads(self.threads)
        return self._step.count_flops(self._batches)

    def matrix_rate(self) -> float:
        """What the device reaches in a large matrix product of the run's precision."""
        torch.set_num_threads(self.threads)
        precision = str(self.config.trainer.precision)
        dtype = torch.bfloat16 if "bf16" in precision else torch.float16 if "16" in precision else torch.float32
        return matrix_flops_per_second(torch.device("cuda" if self.on_gpu else "cpu"), dtype)

    def prepared(self) -> Prepared:
        """What preparing the videos would give."""
        crop = max(int(part.clips.shape[-2]) for part in clip_batches(self._batches[0]))
        return measured_or_estimated(self.datamodule, direct=self._direct, crop=crop, num_workers=available_cores())

    def close(self) -> None:
        """Ends the decoding process of this one."""
        self.datamodule.decoder.close()

    def circumstances(self) -> Circumstances:
        """What was measured, and on what."""
        parts = clip_batches(self._batches[0])
        per_node = max(1, self.num_devices // int(self.config.trainer.num_nodes))
        return Circumstances(
            name=self.name,
            videos=len(self._batches[0]),
            clips=sum(part.num_clips for part in parts),
            num_workers=self.datamodule.num_workers,
            cores=max(1, available_cores() // per_node),
            compute_threads=0 if self.on_gpu else self.threads,
            device=torch.cuda.get_device_name() if self.on_gpu else "CPU",
            augment_on=self.datamodule.augment_on,
            num_steps=self.num_steps,
            startup_seconds=self._build_seconds + self._first_step_seconds,
            num_devices=self.num_devices,
        )

    @property
    def _multiple(self) -> int:
        return int(self.config.trainer.accumulate_grad_batches)

    def _real(self, steps: int, seconds: float) -> tuple[Any, Limits]:
        """The run's loader, with batches to spare: a queue that runs dry would leave the cores to the network."""
        at_once = self.datamodule.num_workers * self.datamodule.clips_per_open
        ahead = PREFETCHED * at_once
        burst = at_once if self._delivery_ms > NEARLY * self._step_ms else 0
        limits = Limits(ahead + 2, steps, seconds, self._multiple, burst)
        number = 2 * ahead + limits.warm_up + steps + 2 * math.lcm(self._multiple, burst or 1)
        first = self._take(number)
        return self.datamodule.training_loader(first + number, first_batch=first), limits

    def _take(self, number: int) -> int:
        """The next batches of the run; whole openings, so that none is opened twice."""
        first, repeats = self._next_batch, self.datamodule.clips_per_open
        self._next_batch += -(-number // repeats) * repeats
        return first

    def _make_trainer(self, folder: Path) -> pl.Trainer:
        config: DictConfig = OmegaConf.create(OmegaConf.to_container(self.config, resolve=True))  # type: ignore
        config.logger, config.callbacks = {}, {}
        config.trainer.devices = config.trainer.num_nodes = 1
        config.strategy = {"name": "auto"}
        config.trainer.max_steps = max(self.num_steps, _FEWEST_STEPS)
        job = Job(choices={"backbone": "measured"}, overrides=[], sweep_dir=None, number=0)
        return build_trainer(config, job, folder, self.datamodule)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
