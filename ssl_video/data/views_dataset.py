"""Samples of one video in several views, all from one opening of its file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from torch.utils.data import Dataset

from ssl_video.data.batch import ClipBatch, Sample, collate
from ssl_video.data.dataset import VideoDataset, View
from ssl_video.data.order import SampleKey

Name = TypeVar("Name", bound=Hashable)


class ViewsDataset(Dataset[dict[Name, Sample]], Generic[Name]):
    """Samples by the name of the view.

    Args:
        videos: where they come from; its own sampler and transform are not used.
        views: how each view is made.
    """

    def __init__(self, videos: VideoDataset, views: Mapping[Name, View]) -> None:
        self.videos = videos
        self.views = dict(views)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: SampleKey) -> dict[Name, Sample]:
        return dict(zip(self.views, self.videos.samples(key, list(self.views.values())), strict=True))


def collate_views(samples: Sequence[Mapping[Name, Sample]]) -> dict[Name, ClipBatch]:
    """Stacks samples view by view."""
    return {name: collate([sample[name] for sample in samples]) for name in samples[0]}
