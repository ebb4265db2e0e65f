"""What a DataLoader hands to a method: clips with their frame numbers, labels and where they came from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_video.data.shared_memory import Lent, lent, stacked

Finish = Callable[[Tensor, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Failure:
    """A video that could not be read when a sample asked for it."""

    row: int
    reason: str


@dataclass(frozen=True)
class Sample:
    """One video's clips, as a worker makes them.

    Attributes:
        clips: ``[V, C, T, H, W]`` float32, or uint8 where the device finishes them; None when the video could not be
            read and nothing replaces it.
        indices: ``[V, T]`` int64, frame numbers within the segment, chronological inside a clip.
        label: class index, -1 where there is none.
        row: row of the manifest that was read.
        video: number of its video; the segments of one video share it.
        epoch: epoch the sample belongs to.
        position: place of the sample in the epoch.
        failures: the videos that failed on the way to this sample.
        flags: what the sampler noted of its draw; see ``ClipRequest``.
        read_seconds: that opening the file, decoding and closing took.
        values: what the transform drew, each ``[V, ...]``; empty where the clips are finished.
        transform_seconds: that drawing and finishing the clips took in the worker.
        restarts: how many decoding processes were replaced on the way to this sample, by the cause.
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
    values: Mapping[str, Tensor] = field(default_factory=dict)
    transform_seconds: float = 0.0
    restarts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ClipBatch:
    """A batch of ``B`` videos with ``V`` clips each.

    Attributes:
        clips: ``[B, V, C, T, H, W]`` float32; uint8 as long as the device has not finished them.
        indices: ``[B, V, T]`` int64, the frames' true times whatever a method does with the clips afterwards.
        labels: ``[B]`` int64, -1 where a video has none.
        rows: ``[B]`` int64, rows of the manifest.
        videos: ``[B]`` int64, numbers of the videos; segments of one video share it and are not each other's negatives.
        positions: ``[B]`` int64, places in the epoch.
        epoch: the epoch all samples belong to.
        failures: videos that could not be read while the batch was made.
        flags: how many of its samples carry each flag of the sampler; see ``ClipRequest``.
        read_seconds: that reading its videos took, in whatever processes.
        values: what the transform drew, each ``[B, V, ...]``; empty once the clips are finished.
        transform_seconds: that drawing and finishing took in whatever processes.
        collate_seconds: that stacking the samples took.
        restarts: how many decoding processes were replaced while the batch was made, by the cause.
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
    values: Mapping[str, Tensor] = field(default_factory=dict)
    transform_seconds: float = 0.0
    collate_seconds: float = 0.0
    restarts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.clips.ndim != 6:
            raise ValueError(f"clips has shape {tuple(self.clips.shape)}; a batch needs [B, V, C, T, H, W].")
        if self.indices.shape != (self.clips.shape[0], self.clips.shape[1], self.clips.shape[3]):
            raise ValueError(
                f"indices has shape {tuple(self.indices.shape)}; clips {tuple(self.clips.shape)} need [B, V, T]."
            )

    def __getstate__(self) -> dict[str, Any]:
        # Between processes a tensor goes through shared memory of its own, a socket and a file: 0.3 ms each. So only
        # the clips do, and what is small goes by value.
        small = {name: _by_value(getattr(self, name)) for name in _TENSORS if name != "clips"}
        values = {name: _by_value(value) for name, value in self.values.items()}
        return {**vars(self), **small, "clips": lent(self.clips), "values": values}

    def __setstate__(self, state: dict[str, Any]) -> None:
        small = {name: _as_tensor(state[name]) for name in _TENSORS if name != "clips"}
        values = {name: _as_tensor(value) for name, value in state["values"].items()}
        clips = state["clips"].take() if isinstance(state["clips"], Lent) else state["clips"]
        vars(self).update({**state, **small, "clips": clips, "values": values})

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

    def finished(self, finish: Finish) -> ClipBatch:
        """The batch with clips as the method takes them; ``finish`` is that of the transform which drew for them."""
        if self.clips.dtype != torch.uint8:
            return self
        num_videos, num_views = self.clips.shape[:2]
        values = {name: value.flatten(0, 1) for name, value in self.values.items()}
        clips = finish(self.clips.flatten(0, 1), values).unflatten(0, (num_videos, num_views))
        return replace(self, clips=clips, values={})


_TENSORS = ("clips", "indices", "labels", "rows", "videos", "positions")


def _by_value(tensor: Tensor) -> Tensor | NDArray[Any]:
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def _as_tensor(value: Tensor | NDArray[Any]) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(value)


def collate(samples: Sequence[Sample]) -> ClipBatch:
    """Stacks samples; those without clips (unreadable videos in evaluation) leave only their failure behind."""
    started = time.perf_counter()
    failures = tuple(failure for sample in samples for failure in sample.failures)
    restarts = dict(sum((Counter(sample.restarts) for sample in samples if sample.restarts), Counter()))
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
            restarts=restarts,
        )
    return ClipBatch(
        clips=_stack_clips([sample.clips for sample in readable if sample.clips is not None]),
        indices=torch.stack([sample.indices for sample in readable]),
        labels=torch.tensor([sample.label for sample in readable]),
        rows=torch.tensor([sample.row for sample in readable]),
        videos=torch.tensor([sample.video for sample in readable]),
        positions=torch.tensor([sample.position for sample in readable]),
        epoch=readable[0].epoch,
        failures=failures,
        restarts=restarts,
        flags=dict(Counter(flag for sample in readable for flag in sample.flags)),
        read_seconds=sum(sample.read_seconds for sample in readable),
        values={name: torch.stack([sample.values[name] for sample in readable]) for name in readable[0].values},
        transform_seconds=sum(sample.transform_seconds for sample in readable),
        collate_seconds=time.perf_counter() - started,
    )


def _stack_clips(clips: Sequence[Tensor]) -> Tensor:
    """``[B, V, C, T, H, W]``; pixels as the reader gave them, uint8, stay channels-last in memory."""
    if clips[0].dtype != torch.uint8:
        return stacked(clips)
    return stacked([own.permute(0, 2, 3, 4, 1) for own in clips]).permute(0, 1, 5, 2, 3, 4)
