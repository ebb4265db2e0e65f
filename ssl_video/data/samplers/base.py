"""What a sampler asks of a video: frame indices first, pixels later."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClipRequest:
    """The frames of V clips of one segment.

    Attributes:
        indices: `[V, T]` int64, relative to the segment's first frame, in time order inside a clip.
        box: `[V, 4]` int64 top, left, height, width in source pixels to cut before scaling, or None for whole frames.
        within_gaps: False if the sampler's limits on the gaps could not be met and the closest draw was taken.
        flags: what the sampler notes of its draw, such as `no_motion_table`; runs count and tell each.
    """

    indices: np.ndarray
    box: np.ndarray | None = None
    within_gaps: bool = True
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check shapes and types, so that a faulty sampler fails here and not in a reader."""
        if self.indices.ndim != 2 or self.indices.size == 0 or self.indices.dtype != np.int64:
            raise ValueError(
                f"indices of shape {self.indices.shape} and type {self.indices.dtype} must be [V, T] int64 with "
                "V, T >= 1; one row per clip."
            )
        if self.indices.min() < 0:
            raise ValueError(f"indices hold {self.indices.min()}; they count from the segment's first frame, 0.")
        if self.box is not None and self.box.shape != (self.indices.shape[0], 4):
            raise ValueError(
                f"box of shape {self.box.shape} must be [{self.indices.shape[0]}, 4] (top, left, height, width): "
                "one box per clip."
            )


def clip_span(num_frames: int, frame_stride: int) -> int:
    """Return how many frames of the video a clip covers, first and last frame included."""
    return (num_frames - 1) * frame_stride + 1


def clip_positions(starts: np.ndarray, *, num_frames: int, frame_stride: int) -> np.ndarray:
    """Return the frame positions `[V, T]` int64 of the clips that begin at `starts` `[V]`."""
    return starts.astype(np.int64)[:, None] + np.arange(num_frames, dtype=np.int64) * frame_stride


def check_clip_shape(*, num_views: int, num_frames: int, frame_stride: int) -> None:
    """Raise ValueError unless every number of a sampler is at least 1."""
    numbers = {"num_views": num_views, "num_frames": num_frames, "frame_stride": frame_stride}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}={number} must be at least 1; a sample has a clip, a clip has a frame.")
