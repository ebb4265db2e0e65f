"""What every video reader does, and the parts that all readers share: request order, cropping, resizing."""

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from ssl_video.data.readers.stream import StreamTable

Box = tuple[int, int, int, int]
"""Top, left, height, width in pixels of the upright source frame."""


@dataclass(frozen=True)
class FramePart:
    """A part of a frame at some size; the default is the whole frame as it is.

    Attributes:
        box: what is kept of the source frame; it is cut before scaling.
        size: height and width to scale to, or None to keep the pixels.
        window: what is kept after scaling, in pixels of the scaled frame.
    """

    box: Box | None = None
    size: tuple[int, int] | None = None
    window: Box | None = None

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what this makes of a frame of that size."""
        if self.window is not None:
            return self.window[2:]
        if self.size is not None:
            return self.size
        return (height, width) if self.box is None else self.box[2:]


@dataclass(frozen=True, eq=False)
class Cut:
    """What one clip wants of a video.

    Attributes:
        indices: ``[T]`` int64 frame indices in the file, in any order, repeats allowed.
        part: of each of these frames.
    """

    indices: np.ndarray
    part: FramePart = FramePart()


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

    def read_cuts(self, cuts: Sequence[Cut]) -> list[np.ndarray]:
        """Reads several clips in one ordered pass; a frame that several of them want is decoded once.

        Returns:
            For each cut uint8 [T, h, w, 3], RGB.

        Raises:
            IndexError: an index is outside the video.
            UnreadableVideo: the frames asked for do not decode.
        """
        ...

    def close(self) -> None:
        """Frees the file; reading afterwards is an error."""
        ...


class ReaderFactory(Protocol):
    """Opens a file for reading frames: a reader's class, or a partial of one."""

    def __call__(self, path: Path, *, table: "StreamTable | None" = None) -> VideoReader:
        """Opens a file.

        Args:
            path: the video.
            table: its table of frames where it is known, so that its packets need not be read for it.

        Raises:
            UnreadableVideo: the file has no video that can be read.
        """
        ...


def _own_memory(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, dtype=np.uint8)


clip_memory: ContextVar[Callable[[tuple[int, ...]], np.ndarray]] = ContextVar("clip_memory", default=_own_memory)
"""Gives the memory, uint8 of a shape, that readers put clips into; a decode child's is shared with its parent."""


def cut_in_order(
    cuts: Sequence[Cut], decode: Callable[[list[int]], Iterator[np.ndarray]], *, num_frames: int, name: str
) -> list[np.ndarray]:
    """Serves cuts from one ordered pass over the distinct frames that they want.

    Args:
        cuts: the request.
        decode: yields the full frame, uint8 [H, W, 3], of each of the ascending distinct indices it is given.
        num_frames: frames of the video, for the check of the request.
        name: the video's name, for messages.

    Returns:
        For each cut uint8 [T, h, w, 3].
    """
    wanted = [check_indices(cut.indices, num_frames=num_frames, name=name) for cut in cuts]
    # Frame index -> number of the cut -> places in its clip.
    takers: dict[int, dict[int, list[int]]] = {}
    for number, indices in enumerate(wanted):
        for place, index in enumerate(indices.tolist()):
            takers.setdefault(index, {}).setdefault(number, []).append(place)
    distinct = sorted(takers)
    clips: list[np.ndarray | None] = [None] * len(cuts)
    for index, frame in zip(distinct, decode(distinct), strict=True):
        for number, places in takers[index].items():
            piece = cut_frame(frame, cuts[number].part)
            clip = clips[number]
            if clip is None:
                clip = clips[number] = clip_memory.get()((len(wanted[number]), *piece.shape))
            for place in places:
                clip[place] = piece
    return [clip for clip in clips if clip is not None]


def cut_frame(frame: np.ndarray, part: FramePart) -> np.ndarray:
    """Cuts a part out of uint8 [H, W, 3] and scales it; a view of it where nothing is scaled."""
    return crop_frame(resize_frame(crop_frame(frame, part.box), part.size), part.window)


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


def crop_frame(frame: np.ndarray, box: Box | None) -> np.ndarray:
    """A view of a box of uint8 [H, W, 3], or of the whole."""
    if box is None:
        return frame
    check_box(box, *frame.shape[:2])
    top, left, height, width = box
    return frame[top : top + height, left : left + width]


def check_box(box: Box, height: int, width: int) -> None:
    """ValueError for a box that does not lie inside a frame of that size."""
    top, left, box_height, box_width = box
    is_inside = min(top, left) >= 0 and top + box_height <= height and left + box_width <= width
    if not is_inside or min(box_height, box_width) < 1:
        raise ValueError(
            f"box={tuple(box)} (top, left, height, width) must lie inside the frame of {height} x {width} pixels "
            "and hold one pixel or more."
        )


def resize_frame(frame: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Scales uint8 [H, W, 3] with antialiased bilinear filtering, as torchvision's resize does.

    All frames are scaled here, in RGB, rather than by each library's own scaler: so readers that decode the same pixels
    also deliver the same scaled pixels. PyTorch's is within a level or two of Pillow's, at a fraction of its time. To
    scale before the colour conversion, by FFmpeg, saves nothing over scaling a whole clip here, and is a level off on
    average and a dozen at most (benchmark/reading.py).
    """
    return frame if size is None else resize_frames(frame[None], size)[0]


def resize_frames(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scales uint8 [T, H, W, 3] as resize_frame does, to the same pixels; all at once takes half the time."""
    if size == frames.shape[1:3]:
        return frames
    import torch  # here: a process that only decodes does without
    from torch.nn import functional as F

    if not frames.flags.writeable or min(frames.strides) < 0:  # neither does torch take
        frames = frames.copy()
    scaled = F.interpolate(torch.from_numpy(frames).permute(0, 3, 1, 2), size, mode="bilinear", antialias=True)
    array: np.ndarray = scaled.permute(0, 2, 3, 1).numpy()
    return array
