"""Labelled clips made in memory, and a network small enough to learn from them in a second."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch, Failure
from ssl_video.evaluation.clips import NUM_CROPS, Crops
from ssl_video.evaluation.training import LabelledVideos
from ssl_video.optim.schedules import Constant

NUM_CLASSES = 3
RECIPE: dict[str, Any] = {
    "train_sampler": None,
    "train_transform": None,
    "optimizer": partial(SGD, lr=0.1, momentum=0.9),
    "scheduler": Constant,
    "batch_size": 8,
    "epochs": 8.0,
    "test_clips": 2,
}


class TinyNet(Backbone):
    """Two convolutions with batch norm: 8 features."""

    feature_dim = 8

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Sequential(nn.Conv3d(3, 6, 3, padding=1, bias=False), nn.BatchNorm3d(6), nn.ReLU()),
                nn.Sequential(nn.Conv3d(6, 8, 1), nn.BatchNorm3d(8), nn.ReLU()),
            )
            nn.init.constant_(self.layers[1][1].weight, 5.0)  # type: ignore[index,arg-type]  # features of about 1

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips to [N, 8, T, H, W]."""
        features: Tensor = self.layers(clips)
        return features


class MadeClips:
    """Training data in memory: the class of a video is the channel that is bright, or nothing where `meaning` is off.

    Rows below 1000 are train videos, the others test videos.
    """

    def __init__(
        self,
        train_labels: Sequence[int],
        test_labels: Sequence[int],
        *,
        groups: Sequence[str | None] | None = None,
        meaning: bool = True,
        unreadable: Sequence[int] = (),
    ) -> None:
        no_groups: list[str | None] = [None] * len(train_labels)
        self.train = LabelledVideos(
            np.arange(len(train_labels)), np.array(train_labels, dtype=np.int64), list(groups or no_groups)
        )
        self.test = LabelledVideos(
            1000 + np.arange(len(test_labels)), np.array(test_labels, dtype=np.int64), [None] * len(test_labels)
        )
        self.meaning = meaning
        self.unreadable = unreadable
        self.asked: list[int] = []  # rows that training has seen

    def train_batches(self, rows: np.ndarray, *, batch_size: int, num_batches: int, seed: int) -> Iterator[ClipBatch]:
        """Noise anew in each batch."""
        per_epoch = len(rows) // batch_size
        for number in range(num_batches):
            epoch, place = divmod(number, per_epoch)
            order = np.random.default_rng([seed, epoch]).permutation(rows)
            chosen = order[place * batch_size : (place + 1) * batch_size]
            self.asked += chosen.tolist()
            yield self._batch(chosen, views=1, seed=1 + number)

    def test_batches(self, rows: np.ndarray, *, num_clips: int, crops: Crops, batch_size: int) -> Iterator[ClipBatch]:
        """The same clips every time, whatever the batch."""
        for start in range(0, len(rows), batch_size):
            yield self._batch(rows[start : start + batch_size], views=num_clips * NUM_CROPS[crops], seed=0)

    def _batch(self, rows: np.ndarray, *, views: int, seed: int) -> ClipBatch:
        there = [row for row in rows.tolist() if row not in self.unreadable]
        labels = [self._label(row) for row in there]
        clips = [self._clip(row, label, views, seed) for row, label in zip(there, labels, strict=True)]
        return ClipBatch(
            clips=torch.stack(clips) if clips else torch.empty(0, 0, 0, 0, 0, 0),
            indices=torch.arange(2).expand(len(there), views if clips else 0, 2)[..., : 2 if clips else 0],
            labels=torch.tensor(labels, dtype=torch.int64),
            rows=torch.tensor(there, dtype=torch.int64),
            videos=torch.tensor(there, dtype=torch.int64),
            positions=torch.arange(len(there)),
            failures=tuple(Failure(row, "gone") for row in rows.tolist() if row in self.unreadable),
        )

    def _label(self, row: int) -> int:
        return int(self.test.labels[row - 1000] if row >= 1000 else self.train.labels[row])

    def _clip(self, row: int, label: int, views: int, seed: int) -> Tensor:
        clip = 0.3 * torch.randn(views, 3, 2, 4, 4, generator=torch.Generator().manual_seed(10_000 * seed + row))
        if self.meaning:
            clip[:, label] += 1.0
        return clip
