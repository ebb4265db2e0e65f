"""What a protocol that trains through the data is given, labelled videos as batches of clips, and what it promises."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.evaluation.clips import Crops
from ssl_video.evaluation.features import ProtocolResult
from ssl_video.utils.errors import InputError


@dataclass(frozen=True)
class LabelledVideos:
    """The labelled videos of a part.

    Attributes:
        rows: `[N]` int64, their rows in the manifest, ascending.
        labels: `[N]` int64 classes.
        groups: N group names (videos of one group share scene or actor), None where a video has none.
    """

    rows: np.ndarray
    labels: np.ndarray
    groups: Sequence[str | None]

    def __len__(self) -> int:
        """Return the number of videos, N."""
        return len(self.rows)


class TrainingData(Protocol):
    """Labelled videos, as one protocol wants to see them.

    Attributes:
        train: videos to learn from, and to choose on.
        test: videos to ask about.
    """

    train: LabelledVideos
    test: LabelledVideos

    def train_batches(self, rows: np.ndarray, *, batch_size: int, num_batches: int, seed: int) -> Iterable[ClipBatch]:
        """Return whole batches of the protocol's training clips, epoch after epoch, in an order drawn from `seed`."""
        ...

    def test_batches(self, rows: np.ndarray, *, num_clips: int, crops: Crops, batch_size: int) -> Iterable[ClipBatch]:
        """Return every video once, in the order of `rows`, nothing dropped and nothing drawn.

        A video that cannot be read any more is left out and stands in the batch's `failures`.
        """
        ...


@dataclass(frozen=True)
class Seconds:
    """How long a protocol will take on one backbone.

    Attributes:
        per_step: of a training step, with the decoding that it has to wait for.
        steps: number of training steps.
        testing: of the test videos, and of those that something is chosen on.
    """

    per_step: float
    steps: int
    testing: float

    @property
    def total(self) -> float:
        """Return the sum, in seconds."""
        return self.per_step * self.steps + self.testing


class TrainingProtocol(Protocol):
    """Measures a backbone by training on clips of labelled videos. It leaves the backbone it is given as it is.

    Attributes:
        name: as on the command line.
        version: of what is computed and how the result is shaped.
        needs_labels: always.
        train_sampler: chooses the frames of a training clip; see `ssl_video.data.samplers`.
        train_transform: makes the clip of them; see `ssl_video.data.transforms`.
        test_sampler: chooses the frames of the test clips; None spreads clips of the training length evenly.
        test_transform: makes them; None takes the checkpoint's own input transform.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    needs_labels: ClassVar[bool]
    train_sampler: Any
    train_transform: Any
    test_sampler: Any
    test_transform: Any

    def __call__(
        self, backbone: Backbone, data: TrainingData, *, num_classes: int, device: torch.device
    ) -> ProtocolResult:
        """Train on `data.train`, return the metrics of `data.test`."""
        ...

    def predict_seconds(
        self, backbone: Backbone, data: TrainingData, *, num_classes: int, device: torch.device
    ) -> Seconds:
        """Return how long the call will take, from a few steps on a copy of the backbone."""
        ...


def check_trainable(data: TrainingData, *, num_classes: int) -> None:
    """Raise InputError unless both parts have labelled videos, and train those of two classes."""
    for part, videos in (("train", data.train), ("test", data.test)):
        if len(videos) == 0:
            raise InputError(
                f"the {part} part has no labelled videos, at least one is needed; give labels "
                "(dataset.labels=FILE.csv), a split column, dataset.test_fraction=0.3 or dataset.test_groups=[...]."
            )
        if int(videos.labels.max()) >= num_classes:
            raise ValueError(f"label {int(videos.labels.max())} must be below num_classes={num_classes}.")
    check_classes(data.train.labels)


def check_batch(num_videos: int, *, batch_size: int) -> None:
    """Raise InputError unless the videos that are learnt from fill a batch."""
    if num_videos < batch_size:
        raise InputError(
            f"evaluation.batch_size={batch_size} is larger than the {num_videos} labelled videos there are to train "
            f"on; set it to {num_videos} or less, and the learning rate in proportion."
        )


def check_classes(labels: np.ndarray) -> None:
    """Raise InputError unless the train part's `labels` `[N]` are of two classes or more."""
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"all {len(labels)} train videos have one class, a classifier needs at least 2; "
            "choose another label column (dataset.label=NAME) or split."
        )
