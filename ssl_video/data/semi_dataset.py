"""Samples of a semi-supervised batch: one labelled clip, or all views of an unlabelled video in one read."""

from __future__ import annotations

from collections.abc import Mapping

from torch.utils.data import Dataset

from ssl_video.data.batch import Sample
from ssl_video.data.dataset import VideoDataset, View
from ssl_video.data.order import SampleKey
from ssl_video.data.semi_batch import LABELED
from ssl_video.data.semi_order import SemiKey


class SemiDataset(Dataset[dict[str, Sample]]):
    """Samples by part of the batch, each a pure function of (seed, epoch, position).

    Args:
        labeled: samples of the labelled part.
        unlabeled: videos of the unlabelled part; their labels are -1.
        views: how each view of an unlabelled video is made.
    """

    def __init__(self, labeled: VideoDataset, unlabeled: VideoDataset, *, views: Mapping[str, View]) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.views = dict(views)

    def __len__(self) -> int:
        return len(self.labeled) + len(self.unlabeled)

    def __getitem__(self, key: SemiKey) -> dict[str, Sample]:
        own = SampleKey(key.epoch, key.position, key.row)
        if key.labeled:
            return {LABELED: self.labeled[own]}
        return dict(zip(self.views, self.unlabeled.samples(own, list(self.views.values())), strict=True))
