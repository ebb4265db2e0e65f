"""Samples of a semi-supervised batch: one labelled clip, or all views of an unlabelled video in one read."""

from __future__ import annotations

from collections.abc import Mapping

from torch.utils.data import Dataset

from ssl_video.data.batch import Sample
from ssl_video.data.dataset import VideoDataset, View
from ssl_video.data.order import SampleKey
from ssl_video.data.semi_batch import LABELED
from ssl_video.data.semi_order import SemiKey


class SemiDataset(Dataset[list[dict[str, Sample]]]):
    """For each key and repeat the samples by part of the batch; pure functions of (seed, epoch, position, repeat).

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

    def __getitem__(self, key: SemiKey) -> list[dict[str, Sample]]:
        own = SampleKey(key.epoch, key.position, key.row, key.repeats)
        if key.labeled:
            view = View(self.labeled.sampler, self.labeled.transform)
            return [{LABELED: sample} for [sample] in self.labeled.repeated(own, [view])]
        repeats = self.unlabeled.repeated(own, list(self.views.values()))
        return [dict(zip(self.views, samples, strict=True)) for samples in repeats]
