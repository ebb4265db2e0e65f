"""From a sample's key to its clips: one open, one read, one transform."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ssl_video.data.batch import Failure, Sample
from ssl_video.data.decoding.decoder import Decoder
from ssl_video.data.manifest import Manifest, Segment
from ssl_video.data.motion import MotionTables
from ssl_video.data.order import SampleKey
from ssl_video.data.readers.base import Cut, FramePart
from ssl_video.data.samplers.base import ClipRequest
from ssl_video.data.transforms.base import Drawn, as_clips
from ssl_video.utils.errors import UnreadableVideo


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
    """Makes clips of frames in two steps; see ``ssl_video.data.transforms.base``."""

    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        """All that is chance, from torch's global generator, and which part of its frames each clip needs."""
        ...

    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """uint8 ``[N, C, T, h, w]`` and what was drawn for them to the clips as a method takes them, float32."""
        ...

    def __call__(self, clips: Tensor) -> Tensor:
        """Both steps, on whole decoded clips of one sample, uint8 ``[V, T, H, W, 3]``."""
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
    """Samples of a manifest's rows, each a pure function of (seed, epoch, position, repeat), or of (seed, row).

    The latter in evaluation. Several samples of one key come from one opening of the file; see ``data/repeats.py``.

    Args:
        manifest: the videos.
        rows: usable rows; a replacement for an unreadable video is drawn from these.
        labels: ``[len(manifest)]`` class indices, -1 where there is none.
        videos: ``[len(manifest)]`` number of each row's video.
        sampler: chooses the frames.
        transform: makes the clips from the frames.
        decoder: reads frames of a file.
        seed: the run's seed.
        unreadable: ``replace`` draws another video by a rule of (seed, epoch, position, attempt), so that a resumed
            run replaces it by the same one; ``report`` gives a sample without clips (evaluation must not swap videos).
        attempts: replacements that may fail in a row before the sample gives up.
        motion: motion tables, for samplers that choose by motion.
        finish: finish the clips here; False leaves them uint8, with what was drawn, for the device to finish.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        videos: NDArray[np.int32],
        sampler: ClipSampler,
        transform: ClipTransform,
        decoder: Decoder,
        seed: int,
        unreadable: Literal["replace", "report"] = "replace",
        attempts: int = 10,
        motion: MotionTables | None = None,
        finish: bool = True,
    ) -> None:
        self.manifest = manifest
        self.rows = rows
        self.labels = labels
        self.videos = videos
        self.sampler = sampler
        self.transform = transform
        self.decoder = decoder
        self.seed = seed
        self.unreadable = unreadable
        self.attempts = attempts
        self.motion = motion
        self.finish = finish

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: SampleKey) -> Sample:
        return self.samples(key, [View(self.sampler, self.transform)])[0]

    def samples(self, key: SampleKey, views: Sequence[View]) -> list[Sample]:
        """One video's sample in each view, the file opened once.

        What failed on the way, and the time that reading took, stand with the first.
        """
        [samples] = self.repeated(key, views)
        return samples

    def repeated(self, key: SampleKey, views: Sequence[View]) -> list[list[Sample]]:
        """One video's samples in each view, for each of the key's repeats, the file opened once.

        What failed on the way, and the time that reading took, stand with the very first.
        """
        failures: list[Failure] = []
        for attempt in range(self.attempts):
            row = key.row if attempt == 0 else self._replacement(key, attempt)
            try:
                seen, read_seconds = self._read(
                    row, list(views) * len(key.repeats), self._chance(key, attempt, len(views))
                )
            except UnreadableVideo as fault:
                failures.append(Failure(row, str(fault)))
                if self.unreadable == "report":
                    return [[self._without_clips(key, failures)] * len(views)] * len(key.repeats)
                continue
            samples = [
                Sample(
                    clips=own.clips,
                    # The crops of a clip show the same frames.
                    indices=torch.from_numpy(own.request.indices).repeat_interleave(
                        len(own.clips) // len(own.request.indices), 0
                    ),
                    label=int(self.labels[row]),
                    row=row,
                    video=int(self.videos[row]),
                    epoch=key.epoch,
                    position=key.position,
                    failures=() if place else tuple(failures),
                    read_seconds=0.0 if place else read_seconds,
                    flags=own.request.flags if own.request.within_gaps else (*own.request.flags, "outside_gaps"),
                    values=own.values,
                    transform_seconds=own.seconds,
                    restarts={} if place else self.decoder.take_restarts(),
                )
                for place, own in enumerate(seen)
            ]
            return [samples[start : start + len(views)] for start in range(0, len(samples), len(views))]
        named = "; ".join(f"{self.manifest.segment(f.row).path}: {f.reason}" for f in failures)
        raise RuntimeError(
            f"{self.attempts} videos in a row could not be read at epoch {key.epoch}, position {key.position}; the "
            f"run ends rather than train on what is left. Check the files, then index again. They were: {named}"
        )

    def _chance(self, key: SampleKey, attempt: int, num_views: int) -> list[np.random.Generator]:
        """Where the draws of each repeat and view come from.

        The views of a training sample draw one after the other. In evaluation each view has its own source, which
        follows from the row alone: then no view looks different because others are wanted too, or other videos.
        """
        if self.unreadable == "report":
            return [np.random.default_rng([self.seed, key.row]) for _ in key.repeats for _ in range(num_views)]
        # The first repeat draws as if there were no other.
        seeds = [
            [self.seed, key.epoch, key.position, attempt, *([2, repeat] if repeat else [])] for repeat in key.repeats
        ]
        return [rng for seed in seeds for rng in [np.random.default_rng(seed)] * num_views]

    def _replacement(self, key: SampleKey, attempt: int) -> int:
        rng = np.random.default_rng([self.seed, key.epoch, key.position, attempt, 1])
        return int(self.rows[rng.integers(len(self.rows))])

    def _without_clips(self, key: SampleKey, failures: Sequence[Failure]) -> Sample:
        nothing = torch.empty(0, 0, dtype=torch.int64)
        return Sample(None, nothing, -1, key.row, int(self.videos[key.row]), key.epoch, key.position, tuple(failures))

    def _read(
        self, row: int, views: Sequence[View], chance: Sequence[np.random.Generator]
    ) -> tuple[list[_Seen], float]:
        """Clips of each view, and the seconds that opening, decoding and closing took."""
        segment = self.manifest.segment(row)
        if self.motion is not None and any(uses_motion(view.sampler) for view in views):
            segment = replace(segment, motion=self.motion.read(segment))
        requests = [view.sampler(segment, rng) for view, rng in zip(views, chance, strict=True)]
        seeds = [int(rng.integers(2**63)) for rng in chance]
        drawn = []
        for view, request, seed in zip(views, requests, seeds, strict=True):
            with seeded(seed):
                drawn.append(view.transform.draw(_sizes(segment, request), num_frames=request.indices.shape[1]))
        cuts = [_cuts(segment, request, own) for request, own in zip(requests, drawn, strict=True)]
        started = time.perf_counter()
        wanted_cuts = [cut for own in cuts for cut in own]
        table = self.manifest.stream_table(row)
        pixels = iter(self.decoder.decode(self.manifest.file(row), wanted_cuts, table=table))
        read_seconds = time.perf_counter() - started
        seen = []
        for view, request, own, wanted, seed in zip(views, requests, drawn, cuts, seeds, strict=True):
            began = time.perf_counter()
            clips = as_clips(_joined([next(pixels) for _ in wanted], num_clips=len(own.parts)))
            values = own.values
            if self.finish:
                with seeded(seed ^ 1):
                    clips, values = view.transform.finish(clips, values), {}
            seen.append(_Seen(clips, request, values, time.perf_counter() - began))
        return seen, read_seconds


@dataclass(frozen=True)
class _Seen:
    """Clips of one view, finished or not."""

    clips: Tensor
    request: ClipRequest
    values: Mapping[str, Tensor]
    seconds: float


def _sizes(segment: Segment, request: ClipRequest) -> list[tuple[int, int]]:
    """Height and width of the frames that each clip's transform sees: the sampler's box, or whole frames."""
    if request.box is None:
        return [(segment.height, segment.width)] * len(request.indices)
    return [(height, width) for _, _, height, width in request.box.tolist()]


def _cuts(segment: Segment, request: ClipRequest, drawn: Drawn) -> list[Cut]:
    """What the reader is asked for: one cut for each clip, or one for each frame where each has a part of its own."""
    wanted = request.indices + segment.first_frame
    crops = len(drawn.parts) // len(wanted)
    cuts = []
    for place, parts in enumerate(drawn.parts):
        indices = wanted[place // crops]
        box = None if request.box is None else request.box[place // crops].tolist()
        if isinstance(parts, FramePart):
            cuts.append(Cut(indices, _within(box, parts)))
        else:
            cuts += [Cut(indices[time : time + 1], _within(box, part)) for time, part in enumerate(parts)]
    return cuts


def _within(outer: Sequence[int] | None, part: FramePart) -> FramePart:
    """A part of what a sampler's box shows, as a part of the whole frame."""
    if outer is None:
        return part
    top, left, height, width = part.box or (0, 0, outer[2], outer[3])
    return replace(part, box=(outer[0] + top, outer[1] + left, height, width))


def _joined(pixels: Sequence[NDArray[np.uint8]], *, num_clips: int) -> Sequence[NDArray[np.uint8]]:
    """Clips ``[T, h, w, 3]`` of pieces that may be single frames."""
    each = len(pixels) // num_clips
    if each == 1:
        return pixels
    return [np.concatenate(pixels[start : start + each]) for start in range(0, len(pixels), each)]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global CPU generator for a block and restores it; torchvision's transforms take no generator."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
