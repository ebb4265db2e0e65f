"""From a sample's key to its clips: one open, one read, one transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ssl_video.data.batch import Failure, Sample
from ssl_video.data.manifest import Manifest, Segment
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


class VideoDataset(Dataset[Sample]):
    """Samples of a manifest's rows, each a pure function of (seed, epoch, position).

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

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: SampleKey) -> Sample:
        failures: list[Failure] = []
        for attempt in range(self.attempts):
            row = key.row if attempt == 0 else self._replacement(key, attempt)
            try:
                clips, indices = self._read(row, np.random.default_rng([self.seed, key.epoch, key.position, attempt]))
            except UnreadableVideo as fault:
                failures.append(Failure(row, str(fault)))
                if self.unreadable == "report":
                    return self._without_clips(key, failures)
                continue
            return Sample(
                clips=clips,
                indices=indices,
                label=int(self.labels[row]),
                row=row,
                video=int(self.videos[row]),
                epoch=key.epoch,
                position=key.position,
                failures=tuple(failures),
            )
        named = "; ".join(f"{self.manifest.segment(f.row).path}: {f.reason}" for f in failures)
        raise RuntimeError(
            f"{self.attempts} videos in a row could not be read at epoch {key.epoch}, position {key.position}; the "
            f"run ends rather than train on what is left. Check the files, then index again. They were: {named}"
        )

    def _replacement(self, key: SampleKey, attempt: int) -> int:
        rng = np.random.default_rng([self.seed, key.epoch, key.position, attempt, 1])
        return int(self.rows[rng.integers(len(self.rows))])

    def _without_clips(self, key: SampleKey, failures: Sequence[Failure]) -> Sample:
        nothing = torch.empty(0, 0, dtype=torch.int64)
        return Sample(None, nothing, -1, key.row, int(self.videos[key.row]), key.epoch, key.position, tuple(failures))

    def _read(self, row: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        segment = self.manifest.segment(row)
        request = self.sampler(segment, rng)
        reader = self.open_reader(self.manifest.file(row))
        try:
            frames = reader.read(
                (request.indices + segment.first_frame).reshape(-1),
                size=self.transform.decode_size(segment.height, segment.width),
            )
        finally:
            reader.close()
        clips = torch.from_numpy(frames).unflatten(0, request.indices.shape)
        with seeded(int(rng.integers(2**63))):
            return self.transform(clips), torch.from_numpy(request.indices)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global CPU generator for a block and restores it; torchvision's transforms take no generator."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
