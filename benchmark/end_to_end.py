"""Training from files against the slower of its two halves alone: the loader without steps, and steps without a loader.

All three are the real thing: the trainer that ``train.py`` builds, with the callbacks of a run, and the loader of its
data module. They take turns, and each is timed from a few batches after its start, when everything has warmed up.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from benchmark.blocks import Spread, on_cores
from benchmark.figures import Figure
from benchmark.step import Preloaded
from ssl_video.cli.parts import PROVIDED, TrainSettings, build_checked
from ssl_video.cli.trainer import build_trainer
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.utils.config import compose_checked
from ssl_video.utils.run import Job

REACH = 0.92
WARM_UP = 6  # batches; more than workers fetch ahead
# A step that takes about as long as loading its batch with one worker, the hardest case to overlap.
OVERRIDES = (
    "method=moco",
    "batch_size=8",
    "dataset.num_workers=1",
    "sampler.num_frames=16",
    "checkpoint_every_steps=1000",
)


@dataclass
class Clock(pl.Callback):
    """When each training batch was done."""

    times: list[float] = field(default_factory=list)

    def on_train_batch_end(self, *_: Any) -> None:
        """Notes the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def rate(self, batch_size: int) -> float:
        """Samples per second after the warm-up."""
        times = self.times[WARM_UP - 1 :]
        return batch_size * (len(times) - 1) / (times[-1] - times[0])


def end_to_end(root: Path, *, rounds: int, steps: int, overrides: Sequence[str] = OVERRIDES) -> Figure:
    """Samples per second of training on a folder of videos against those of its slower half.

    Args:
        root: the folder.
        rounds: of each.
        steps: of each round.
        overrides: of the training configuration.
    """
    words = ["dataset=folder", f"dataset.root={root}", f"cache_dir={root.parent / 'cache'}", *overrides]
    config = compose_checked("train", words, provided=PROVIDED, settings=TrainSettings)
    config.trainer.max_steps = WARM_UP + steps
    halves: dict[str, Callable[[DictConfig], float]] = {"loader": _loader_alone, "step": _step_alone, "both": _both}
    rates: dict[str, list[float]] = {name: [] for name in halves}
    names = list(halves)
    threads = torch.get_num_threads()
    with on_cores(2):
        torch.set_num_threads(1)
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                rates[name].append(halves[name](config))
        torch.set_num_threads(threads)
    shares = [both / min(loader, step) for loader, step, both in zip(*(rates[name] for name in names), strict=True)]
    return Figure(
        what="training on files, samples per second",
        against="the slower one of loader alone and step alone",
        bound="least",
        reach=REACH,
        value=Spread.of(shares),
        unit="ratio of wall time",
        details={f"{name}, samples per second": median(own) for name, own in rates.items()}
        | {"overrides": " ".join(overrides)},
    )


def _loader_alone(config: DictConfig) -> float:
    _, datamodule = build_checked(config)
    clock = Clock()
    for _ in datamodule.training_loader(config.trainer.max_steps):
        clock.on_train_batch_end()
    return clock.rate(config.batch_size)


def _step_alone(config: DictConfig) -> float:
    _, datamodule = build_checked(config)
    batch = next(iter(datamodule.training_loader(1)))
    return _fit(config, Preloaded(batch, config.trainer.max_steps))


def _both(config: DictConfig) -> float:
    return _fit(config, None)


def _fit(config: DictConfig, batches: Iterable[Any] | None) -> float:
    """Trains on given batches, or on files; samples per second."""
    method, datamodule = build_checked(config)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(config, datamodule, Path(folder))
        trainer.callbacks.append(clock)
        if batches is not None:
            datamodule.train_dataloader = lambda: batches  # type: ignore[method-assign,assignment,return-value]
        trainer.fit(method, datamodule=datamodule)
    return clock.rate(config.batch_size)


def _trainer(config: DictConfig, datamodule: VideoDataModule, folder: Path) -> Any:
    choices = {"method": "method", "backbone": "backbone", "dataset": "folder"}
    return build_trainer(config, Job(choices=choices, overrides=[], sweep_dir=None, number=0), folder, datamodule)
