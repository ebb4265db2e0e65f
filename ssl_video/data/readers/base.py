"""What every video reader does, and the parts that all readers share: request order, cropping, resizing."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]
"""Top, left, height, width in pixels of the upright source frame."""


class VideoReader(Protocol):
    """One open video; index = presentation order, frames upright, as stored (not deinterlaced, pixels not squared)."""

    num_frames: int
    fps: float

    def read(
        self, indices: Sequence[int] | np.ndarray, *, box: Box | None = None, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Reads frames in the order asked, repeats allowed; each frame is decoded once.

        Args:
            indices: frame indices, each in 0..num_frames-1.
            box: part of the frame to keep; it is cropped before scaling.
            size: height and width to scale to, or None to keep the pixels.

        Returns:
            uint8 [T, H, W, 3], RGB.

        Raises:
            IndexError: an index is outside the video.
            UnreadableVideo: the frames asked for do not decode.
        """
        ...

    def close(self) -> None:
        """Frees the file; reading afterwards is an error."""
        ...


ReaderFactory = Callable[[Path], VideoReader]


def read_once_in_order(
    indices: Sequence[int] | np.ndarray,
    decode: Callable[[np.ndarray], Iterator[np.ndarray]],
    *,
    num_frames: int,
    name: str,
    box: Box | None,
    size: tuple[int, int] | None,
) -> np.ndarray:
    """Serves a request in any order, with repeats, from one ordered pass without repeats.

    Args:
        indices: the request.
        decode: yields the full frame, uint8 [H, W, 3], of each of the ascending distinct indices it is given.
        num_frames: frames of the video, for the check of the request.
        name: the video's name, for messages.
        box: see VideoReader.read.
        size: see VideoReader.read.

    Returns:
        uint8 [T, H, W, 3].
    """
    wanted = check_indices(indices, num_frames=num_frames, name=name)
    distinct, places = np.unique(wanted, return_inverse=True)
    frames = np.stack([crop_and_resize(frame, box=box, size=size) for frame in decode(distinct)])
    return frames if np.array_equal(wanted, distinct) else frames[places]


def check_indices(indices: Sequence[int] | np.ndarray, *, num_frames: int, name: str) -> np.ndarray:
    """Returns the request as int64 [T]; IndexError where a frame is asked that the video does not have."""
    wanted = np.asarray(indices, dtype=np.int64)
    if wanted.ndim != 1 or not len(wanted):
        raise ValueError(f"indices of shape {wanted.shape} must be a list of one frame index or more.")
    outside = wanted[(wanted < 0) | (wanted >= num_frames)]
    if len(outside):
        raise IndexError(
            f"frame {int(outside[0])} of {name} must be in 0..{num_frames - 1}; the video has {num_frames} frames. "
            "If the file was replaced after it was indexed, index the folder again."
        )
    return wanted


def crop_and_resize(frame: np.ndarray, *, box: Box | None, size: tuple[int, int] | None) -> np.ndarray:
    """Crops uint8 [H, W, 3] to a box, then scales with antialiased bilinear filtering (as torchvision's resize).

    Every reader scales here, on RGB, rather than by its own library's scaler: so readers that decode the same pixels
    also deliver the same scaled pixels.
    """
    if box is not None:
        top, left, height, width = box
        is_inside = min(top, left) >= 0 and top + height <= frame.shape[0] and left + width <= frame.shape[1]
        if not is_inside or min(height, width) < 1:
            raise ValueError(
                f"box={tuple(box)} (top, left, height, width) must lie inside the frame of {frame.shape[0]} x "
                f"{frame.shape[1]} pixels and hold one pixel or more."
            )
        frame = frame[top : top + height, left : left + width]
    if size is None or size == frame.shape[:2]:
        return np.ascontiguousarray(frame)
    height, width = size
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
