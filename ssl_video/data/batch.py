"""What a DataLoader hands to a method: clips with their frame numbers, labels and where they came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Failure:
    """A video that could not be read when a sample asked for it."""

    row: int
    reason: str


@dataclass(frozen=True)
class Sample:
    """One video's clips, as a worker makes them.

    Attributes:
        clips: ``[V, C, T, H, W]`` float32, or None when the video could not be read and nothing replaces it.
        indices: ``[V, T]`` int64, frame numbers within the segment, chronological inside a clip.
        label: class index, -1 where there is none.
        row: row of the manifest that was read.
        video: number of its video; the segments of one video share it.
        epoch: epoch the sample belongs to.
        position: place of the sample in the epoch.
        failures: the videos that failed on the way to this sample.
        flags: what the sampler noted of its draw; see ``ClipRequest``.
        read_seconds: that opening the file, decoding and closing took.
    """

    clips: Tensor | None
    indices: Tensor
    label: int
    row: int
    video: int
    epoch: int
    position: int
    failures: tuple[Failure, ...] = ()
    flags: tuple[str, ...] = ()
    read_seconds: float = 0.0


@dataclass(frozen=True)
class ClipBatch:
    """A batch of ``B`` videos with ``V`` clips each.

    Attributes:
        clips: ``[B, V, C, T, H, W]`` float32.
        indices: ``[B, V, T]`` int64, the frames' true times whatever a method does with the clips afterwards.
        labels: ``[B]`` int64, -1 where a video has none.
        rows: ``[B]`` int64, rows of the manifest.
        videos: ``[B]`` int64, numbers of the videos; segments of one video share it and are not each other's negatives.
        positions: ``[B]`` int64, places in the epoch.
        epoch: the epoch all samples belong to.
        failures: videos that could not be read while the batch was made.
        flags: how many of its samples carry each flag of the sampler; see ``ClipRequest``.
        read_seconds: that reading its videos took, in whatever processes.
    """

    clips: Tensor
    indices: Tensor
    labels: Tensor
    rows: Tensor
    videos: Tensor
    positions: Tensor
    epoch: int = 0
    failures: tuple[Failure, ...] = field(default=())
    flags: Mapping[str, int] = field(default_factory=dict)
    read_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.clips.ndim != 6:
            raise ValueError(f"clips has shape {tuple(self.clips.shape)}; a batch needs [B, V, C, T, H, W].")
        if self.indices.shape != (self.clips.shape[0], self.clips.shape[1], self.clips.shape[3]):
            raise ValueError(
                f"indices has shape {tuple(self.indices.shape)}; clips {tuple(self.clips.shape)} need [B, V, T]."
            )

    def __len__(self) -> int:
        return self.clips.shape[0]

    @property
    def num_clips(self) -> int:
        """B·V, clips of all videos."""
        return self.clips.shape[0] * self.clips.shape[1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ClipBatch:
        """Moves the tensors to ``device``; Lightning calls this."""
        moved = {name: getattr(self, name).to(device, non_blocking=non_blocking) for name in _TENSORS}
        return replace(self, **moved)

    def pin_memory(self) -> ClipBatch:
        """Copies the tensors to page-locked memory; the DataLoader calls this."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in _TENSORS})


_TENSORS = ("clips", "indices", "labels", "rows", "videos", "positions")


def collate(samples: Sequence[Sample]) -> ClipBatch:
    """Stacks samples; those without clips (unreadable videos in evaluation) leave only their failure behind."""
    failures = tuple(failure for sample in samples for failure in sample.failures)
    readable = [sample for sample in samples if sample.clips is not None]
    if not readable:
        empty = torch.empty(0, dtype=torch.int64)
        return ClipBatch(
            clips=torch.empty(0, 0, 0, 0, 0, 0),
            indices=torch.empty(0, 0, 0, dtype=torch.int64),
            labels=empty,
            rows=empty,
            videos=empty,
            positions=empty,
            failures=failures,
        )
    return ClipBatch(
        clips=torch.stack([sample.clips for sample in readable if sample.clips is not None]),
        indices=torch.stack([sample.indices for sample in readable]),
        labels=torch.tensor([sample.label for sample in readable]),
        rows=torch.tensor([sample.row for sample in readable]),
        videos=torch.tensor([sample.video for sample in readable]),
        positions=torch.tensor([sample.position for sample in readable]),
        epoch=readable[0].epoch,
        failures=failures,
        flags=dict(Counter(flag for sample in readable for flag in sample.flags)),
        read_seconds=sum(sample.read_seconds for sample in readable),
    )
