"""Several samples from one opening of a video, spread over the batches that follow (repeated augmentation).

Opening a file, seeking, and decoding from the last keyframe are often most of a sample's cost, and several clips share
them. With ``clips_per_open`` R a worker opens the videos of a batch once and makes R batches of them: repeat r of every
video stands in the r-th. So no batch holds a video twice, and an epoch, which still opens each video once, has R times
as many batches. What repeats draw is as independent as what two epochs draw, but the same videos follow each other: a
queue holds keys of a video's other repeats, up to R - 1 batches of them. MoCo leaves keys of a query's own video out of
its negatives, so it only has a few less.

After Hoffer et al., CVPR 2020 (arXiv 1901.09335), which puts the repeats into one batch, and the repeated sampling of
masked autoencoders on video (Feichtenhofer et al., NeurIPS 2022), which counts its epochs times the repeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset, Sampler

from ssl_video.data.batch import Sample
from ssl_video.data.dataset import VideoDataset, View
from ssl_video.data.order import BatchOrder, SampleKey
from ssl_video.data.semi_order import SemiKey, SemiOrder

Batch = TypeVar("Batch")


class RepeatedOrder(Sampler[list[SampleKey] | list[SemiKey]]):
    """The order of openings, each with the repeats that are made of it.

    Arithmetic, like the order beneath it: batch b of the run is repeat ``b % clips_per_open`` of opening
    ``b // clips_per_open``. A run that goes on in the middle of an opening opens its videos again and makes the repeats
    that are left.

    Args:
        openings: order of the openings from ``first_batch // clips_per_open`` on, one batch of videos each.
        clips_per_open: R.
        num_batches: batches of the whole run.
        first_batch: batches of the run that were consumed before.
    """

    def __init__(
        self, openings: BatchOrder | SemiOrder, *, clips_per_open: int, num_batches: int, first_batch: int = 0
    ) -> None:
        self.openings = openings
        self.clips_per_open = clips_per_open
        self.num_batches = num_batches
        self.first_batch = first_batch

    def __len__(self) -> int:
        """Openings that are left."""
        return len(range(self.first_batch // self.clips_per_open, -(-self.num_batches // self.clips_per_open)))

    def __iter__(self) -> Iterator[Any]:
        batch = self.first_batch
        for keys in self.openings:
            if batch >= self.num_batches:
                return
            first = batch % self.clips_per_open
            stop = min(self.clips_per_open, first + self.num_batches - batch)
            yield [key._replace(repeats=tuple(range(first, stop))) for key in keys]
            batch += stop - first


class RepeatedVideos(Dataset[list[Sample]]):
    """For each key the samples of its repeats.

    Args:
        videos: where they come from.
    """

    def __init__(self, videos: VideoDataset) -> None:
        self.videos = videos

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: SampleKey) -> list[Sample]:
        view = View(self.videos.sampler, self.videos.transform)
        return [sample for [sample] in self.videos.repeated(key, [view])]


class EachRepeat:
    """Collates the r-th repeats of all videos, for every r.

    Args:
        collate: makes a batch of samples.
    """

    def __init__(self, collate: Callable[[Sequence[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, videos: Sequence[Sequence[Any]]) -> list[Any]:
        """The batches of one opening."""
        return [self.collate(samples) for samples in zip(*videos, strict=True)]


class UnrolledLoader(Generic[Batch]):
    """The batches of all openings, one after the other.

    Args:
        openings: gives the batches of one opening at a time.
        num_batches: of the whole run, also when the iteration starts in its middle: the trainer counts from the start.

    Attributes:
        waited_seconds: that this process has waited for batches so far.
    """

    def __init__(self, openings: DataLoader[Any], *, num_batches: int) -> None:
        self.openings = openings
        self.num_batches = num_batches
        self.waited_seconds = 0.0

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:
        openings: Iterator[list[Batch]] = iter(self.openings)
        while True:
            began = time.perf_counter()
            opening = next(openings, None)
            self.waited_seconds += time.perf_counter() - began
            if opening is None:
                return
            yield from opening
