"""Protocols that train through the data: what they are given, and how long they will take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from ssl_video.backbones.base import Backbone
from ssl_video.cli.views import make_view
from ssl_video.data.batch import Sample
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.evaluation.clips import ClipSpec, Crops
from ssl_video.evaluation.features import ProtocolResult
from ssl_video.evaluation.training import LabelledVideos, Seconds, TrainingProtocol
from ssl_video.utils.config import build


def tell_training_time(
    config: DictConfig,
    protocol: TrainingProtocol,
    datamodule: VideoDataModule,
    backbones: Mapping[str, Backbone],
    split: str,
    *,
    num_splits: int = 1,
) -> None:
    """Prints how long ``run_training_protocol`` will take, from a few steps.

    Args:
        config: the evaluation's.
        protocol: what will be run.
        datamodule: the data.
        backbones: by name; they stay as they are.
        split: the split asked about.
        num_splits: official splits on which the command repeats all this.

    Raises:
        InputError: as ``run_training_protocol``.
    """
    data, told = _what_it_takes(config, protocol, datamodule, split)
    seconds = protocol.predict_seconds(next(iter(backbones.values())), data, **told)
    print(describe_time(protocol.name, seconds, num_backbones=len(backbones), num_splits=num_splits), flush=True)


def run_training_protocol(
    config: DictConfig,
    protocol: TrainingProtocol,
    datamodule: VideoDataModule,
    backbones: Mapping[str, Backbone],
    split: str,
) -> dict[str, ProtocolResult]:
    """Trains and asks each backbone.

    Of several processes the first one alone runs it; nothing in it waits for the others.

    Args:
        config: the evaluation's.
        protocol: what to run.
        datamodule: the data.
        backbones: by name; they stay as they are.
        split: the split asked about.

    Returns:
        Results by backbone. Their arrays speak of the labelled videos of ``split`` that can be read, in the
        manifest's order.

    Raises:
        InputError: no labels, one class, an empty part, too few videos, or clips that do not fit the backbone.
    """
    data, told = _what_it_takes(config, protocol, datamodule, split)
    return {name: protocol(backbone, data, **told) for name, backbone in backbones.items()}


def _what_it_takes(
    config: DictConfig, protocol: TrainingProtocol, datamodule: VideoDataModule, split: str
) -> tuple[VideoTrainingData, dict[str, Any]]:
    data = VideoTrainingData(datamodule, protocol, input_transform=build(config.input_transform), split=split)
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
    return data, {"num_classes": len(datamodule.class_names), "device": device}


def describe_time(name: str, seconds: Seconds, *, num_backbones: int, num_splits: int) -> str:
    """One line: the time predicted for all that a command trains, and what it is made of."""
    runs = num_backbones * num_splits
    times = f" x {num_backbones} backbones" * (num_backbones > 1) + f" x {num_splits} splits" * (num_splits > 1)
    return (
        f"{name}: about {in_words(seconds.total * runs)} ({seconds.steps} steps of {seconds.per_step:.3g} s and "
        f"{in_words(seconds.testing)} of testing{times})"
    )


def in_words(seconds: float) -> str:
    """A duration in the unit that suits it: ``40 s``, ``3.5 min``, ``12.1 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class VideoTrainingData:
    """Labelled videos of a data module, seen as one protocol wants it.

    Args:
        datamodule: the data.
        protocol: whose samplers and transforms make the clips.
        input_transform: of the checkpoint, for a protocol without one for its test clips.
        split: the split asked about.
    """

    def __init__(
        self, datamodule: VideoDataModule, protocol: TrainingProtocol, *, input_transform: Any, split: str
    ) -> None:
        self.datamodule = datamodule
        self.protocol = protocol
        self.test_transform = protocol.test_transform or input_transform
        self.train = self._labelled("train")
        self.test = self._labelled(split)

    def _labelled(self, split: str) -> LabelledVideos:
        readable = self.datamodule.readable_rows(split)
        rows = readable[self.datamodule.labels[readable] >= 0]
        units = self.datamodule.manifest.units()
        return LabelledVideos(rows, self.datamodule.labels[rows], [units[row] for row in rows.tolist()])

    def train_batches(
        self, rows: NDArray[np.int64], *, batch_size: int, num_batches: int, seed: int
    ) -> DataLoader[Sample]:
        """The training clips, shuffled."""
        return self.datamodule.labelled_loader(
            rows,
            sampler=self.protocol.train_sampler,
            transform=self.protocol.train_transform,
            batch_size=batch_size,
            num_batches=num_batches,
            seed=seed,
        )

    def test_batches(
        self, rows: NDArray[np.int64], *, num_clips: int, crops: Crops, batch_size: int
    ) -> DataLoader[Sample]:
        """All test clips of each video; those of the protocol's own sampler, if it has one."""
        train = self.protocol.train_sampler
        spec = ClipSpec(num_clips=num_clips, crops=crops, num_frames=train.num_frames)
        view = make_view(spec, frame_stride=train.frame_stride, transform=self.test_transform)
        return self.datamodule.labelled_loader(
            rows,
            sampler=self.protocol.test_sampler or view.sampler,
            transform=view.transform,
            batch_size=batch_size,
        )
