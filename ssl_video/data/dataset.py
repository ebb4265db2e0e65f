"""From a sample's key to its clips: one open, one read, one transform."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ssl_video.data.batch import Failure, Sample
from ssl_video.data.manifest import Manifest, Segment
from ssl_video.data.motion import MotionTables
from ssl_video.data.order import SampleKey
from ssl_video.data.readers.base import VideoReader
from ssl_video.data.samplers.base import ClipRequest
from ssl_video.utils.errors import UnreadableVideo

ReaderFactory = Callable[[Path], VideoReader]


class ClipSampler(Protocol):
    """Chooses frame numbers; see ``ssl_video.data.samplers``."""

    num_views: int
    num_frames: int
    frame_stride: int
    min_frames: int

    @property
    def end_policy(self) -> str:
        """What happens to a segment shorter than ``min_frames``: ``repeat_last``, ``loop`` or ``error``."""
        ...

    def __call__(self, segment: Segment, rng: np.random.Generator) -> ClipRequest:
        """Frames ``[V, T]`` of a segment, all chance from ``rng``."""
        ...


class ClipTransform(Protocol):
    """uint8 ``[V, T, H, W, 3]`` to float32 ``[V, C, T, h, w]``; see ``ssl_video.data.transforms``."""

    def __call__(self, clips: Tensor) -> Tensor:
        """The clips as a method takes them, all chance from torch's global generator."""
        ...

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Height and width that the reader may scale frames of this size to; None keeps them."""
        ...


@dataclass(frozen=True)
class View:
    """One way of seeing a video: which of its frames, and what is made of them."""

    sampler: ClipSampler
    transform: ClipTransform


def uses_motion(sampler: ClipSampler) -> bool:
    """Whether a sampler chooses frames by the video's motion table."""
    return bool(getattr(sampler, "uses_motion", False))


class VideoDataset(Dataset[Sample]):
    """Samples of a manifest's rows, each a pure function of (seed, epoch, position), in evaluation of (seed, row).

    Args:
        manifest: the videos.
        rows: usable rows; a replacement for an unreadable video is drawn from these.
        labels: ``[len(manifest)]`` class indices, -1 where there is none.
        videos: ``[len(manifest)]`` number of each row's video.
        sampler: chooses the frames.
        transform: makes the clips from the frames.
        open_reader: opens a file for reading frames.
        seed: the run's seed.
        unreadable: ``replace`` draws another video by a rule of (seed, epoch, position, attempt), so that a resumed
            run replaces it by the same one; ``report`` gives a sample without clips (evaluation must not swap videos).
        attempts: replacements that may fail in a row before the sample gives up.
        motion: motion tables, for samplers that choose by motion.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        videos: NDArray[np.int64],
        sampler: ClipSampler,
        transform: ClipTransform,
        open_reader: ReaderFactory,
        seed: int,
        unreadable: Literal["replace", "report"] = "replace",
        attempts: int = 10,
        motion: MotionTables | None = None,
    ) -> None:
        self.manifest = manifest
        self.rows = rows
        self.labels = labels
        self.videos = videos
        self.sampler = sampler
        self.transform = transform
        self.open_reader = open_reader
        self.seed = seed
        self.unreadable = unreadable
        self.attempts = attempts
        self.motion = motion

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: SampleKey) -> Sample:
        return self.samples(key, [View(self.sampler, self.transform)])[0]

    def samples(self, key: SampleKey, views: Sequence[View]) -> list[Sample]:
        """One video's sample in each view, the file opened once.

        What failed on the way, and the time that reading took, stand with the first.
        """
        failures: list[Failure] = []
        for attempt in range(self.attempts):
            row = key.row if attempt == 0 else self._replacement(key, attempt)
            try:
                seen, read_seconds = self._read(row, views, self._chance(key, attempt, len(views)))
            except UnreadableVideo as fault:
                failures.append(Failure(row, str(fault)))
                if self.unreadable == "report":
                    return [self._without_clips(key, failures)] * len(views)
                continue
            return [
                Sample(
                    clips=clips,
                    # The crops of a clip show the same frames.
                    indices=torch.from_numpy(request.indices).repeat_interleave(len(clips) // len(request.indices), 0),
                    label=int(self.labels[row]),
                    row=row,
                    video=int(self.videos[row]),
                    epoch=key.epoch,
                    position=key.position,
                    failures=() if place else tuple(failures),
                    read_seconds=0.0 if place else read_seconds,
                    flags=request.flags if request.within_gaps else (*request.flags, "outside_gaps"),
                )
                for place, (clips, request) in enumerate(seen)
            ]
        named = "; ".join(f"{self.manifest.segment(f.row).path}: {f.reason}" for f in failures)
        raise RuntimeError(
            f"{self.attempts} videos in a row could not be read at epoch {key.epoch}, position {key.position}; the "
            f"run ends rather than train on what is left. Check the files, then index again. They were: {named}"
        )

    def _chance(self, key: SampleKey, attempt: int, num_views: int) -> list[np.random.Generator]:
        """Where each view's draws come from.

        The views of a training sample draw one after the other. In evaluation each view has its own source, which
        follows from the row alone: then no view looks different because others are wanted too, or other videos.
        """
        if self.unreadable == "report":
            return [np.random.default_rng([self.seed, key.row]) for _ in range(num_views)]
        return [np.random.default_rng([self.seed, key.epoch, key.position, attempt])] * num_views

    def _replacement(self, key: SampleKey, attempt: int) -> int:
        rng = np.random.default_rng([self.seed, key.epoch, key.position, attempt, 1])
        return int(self.rows[rng.integers(len(self.rows))])

    def _without_clips(self, key: SampleKey, failures: Sequence[Failure]) -> Sample:
        nothing = torch.empty(0, 0, dtype=torch.int64)
        return Sample(None, nothing, -1, key.row, int(self.videos[key.row]), key.epoch, key.position, tuple(failures))

    def _read(
        self, row: int, views: Sequence[View], chance: Sequence[np.random.Generator]
    ) -> tuple[list[tuple[Tensor, ClipRequest]], float]:
        """Clips of each view with their frame numbers, and the seconds that opening, decoding and closing took."""
        segment = self.manifest.segment(row)
        if self.motion is not None and any(uses_motion(view.sampler) for view in views):
            segment = replace(segment, motion=self.motion.read(segment))
        requests = [view.sampler(segment, rng) for view, rng in zip(views, chance, strict=True)]
        started = time.perf_counter()
        reader = self.open_reader(self.manifest.file(row))
        try:
            frames = _read_views(reader, segment, views, requests)
        finally:
            reader.close()
        read_seconds = time.perf_counter() - started
        seen = []
        for view, request, own, rng in zip(views, requests, frames, chance, strict=True):
            clips = torch.from_numpy(own).unflatten(0, request.indices.shape)
            with seeded(int(rng.integers(2**63))):
                seen.append((view.transform(clips), request))
        return seen, read_seconds


def _read_views(
    reader: VideoReader, segment: Segment, views: Sequence[View], requests: Sequence[ClipRequest]
) -> Iterable[NDArray[np.uint8]]:
    """Frames ``[V * T, H, W, 3]`` of each view, in one pass where all take whole frames of one size."""
    sizes = {view.transform.decode_size(segment.height, segment.width) for view in views}
    if len(sizes) > 1 or any(request.box is not None for request in requests):
        return [_read_view(reader, segment, view, own) for view, own in zip(views, requests, strict=True)]
    wanted = [request.indices.reshape(-1) + segment.first_frame for request in requests]
    if len(wanted) == 1:
        return [reader.read(wanted[0], size=sizes.pop())]
    distinct = np.unique(np.concatenate(wanted))
    frames = reader.read(distinct, size=sizes.pop())
    # One view after the other: an evaluation may want thirty views of the same frames, too much to hold at once.
    return (frames[np.searchsorted(distinct, own)] for own in wanted)


def _read_view(reader: VideoReader, segment: Segment, view: View, request: ClipRequest) -> NDArray[np.uint8]:
    """Frames ``[V * T, H, W, 3]`` of all clips: in one pass, or, where each has its own box, clip by clip."""
    wanted = request.indices + segment.first_frame
    if request.box is None:
        size = view.transform.decode_size(segment.height, segment.width)
        return reader.read(wanted.reshape(-1), size=size)
    clips = []
    for indices, (top, left, height, width) in zip(wanted, request.box.tolist(), strict=True):
        size = view.transform.decode_size(height, width)
        clips.append(reader.read(indices, box=(top, left, height, width), size=size))
    return np.concatenate(clips)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global CPU generator for a block and restores it; torchvision's transforms take no generator."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
