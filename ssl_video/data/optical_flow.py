"""Measuring the motion of a video: optical flow between neighbouring frames, reduced to a table."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ssl_video.data.manifest import Segment
from ssl_video.data.motion import Bytes, Floats, Motion, MotionSettings
from ssl_video.data.readers.base import VideoReader
from ssl_video.utils.errors import InputError

THUMBNAIL_SIDE = 64
FRAMES_AT_ONCE = 64  # decoded frames that are held in memory
RAFT_MULTIPLE = 8  # of RAFT's input sides
RAFT_MIN_SIDE = 128  # its pyramid of correlations is empty below

FlowMagnitude = Callable[[Bytes], Floats]
"""Frames uint8 ``[T, H, W, 3]`` to motion float32 ``[T - 1, H, W]``, frame t to t + 1, in pixels of these frames."""


def farneback(frames: Bytes) -> Floats:
    """Length of the flow between neighbours of ``[T, H, W, 3]`` (Farneback, SCIA 2003).

    The parameters are those of OpenCV's documentation: 3 pyramid levels of half the size each, windows of 15 pixels, 3
    iterations, polynomials over 5 pixels.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    found = np.empty((len(frames) - 1, *frames.shape[1:3]), dtype=np.float32)
    for number, (before, after) in enumerate(itertools.pairwise(grey)):
        nothing = np.empty((*before.shape, 2), dtype=np.float32)  # no first guess
        flow = cv2.calcOpticalFlowFarneback(before, after, nothing, 0.5, 3, 15, 3, 5, 1.2, 0)
        found[number] = np.linalg.norm(flow, axis=-1)
    return found


def frame_difference(frames: Bytes) -> Floats:
    """Absolute difference in grey levels between neighbours of ``[T, H, W, 3]``."""
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]).astype(np.float32)
    difference: Floats = np.abs(np.diff(grey, axis=0))
    return difference


class Raft:
    """Length of RAFT's flow (Teed & Deng, ECCV 2020), by torchvision's network and weights from a file.

    Frames are scaled to sides that RAFT takes (multiples of 8, at least 128); the flow is given in the pixels of the
    frames that came. Tested with random weights on a CPU; not yet run with trained ones.

    Args:
        weights: a state dict of torchvision's ``raft_large`` or ``raft_small``.
        size: which of the two.
        device: where it runs.
        pairs_at_once: pairs of frames in one forward pass.

    Raises:
        InputError: a missing file, or weights of another network.
    """

    def __init__(
        self,
        weights: Path,
        *,
        size: Literal["large", "small"] = "large",
        device: str = "cpu",
        pairs_at_once: int = 16,
    ) -> None:
        # Imported here: the processes that compute Farneback's flow need no torch, which takes seconds to load.
        import torch
        from torchvision.models import optical_flow

        if not weights.is_file():
            raise InputError(f"weights={weights} is no file; give the state dict of torchvision's raft_{size}.")
        self.sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        network = {"large": optical_flow.raft_large, "small": optical_flow.raft_small}[size]()
        try:
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except Exception as fault:  # a file of any other kind can raise nearly anything
            first = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
            raise InputError(f"weights={weights} are not those of torchvision's raft_{size} ({first}).") from fault
        self._network = network.eval().to(device)
        self._device = device
        self._pairs_at_once = pairs_at_once

    def __call__(self, frames: Bytes) -> Floats:
        """uint8 ``[T, H, W, 3]`` to float32 ``[T - 1, H, W]``."""
        import torch
        from torch.nn.functional import interpolate

        height, width = frames.shape[1:3]
        sides = [max(RAFT_MIN_SIDE, round(side / RAFT_MULTIPLE) * RAFT_MULTIPLE) for side in (height, width)]
        images = torch.from_numpy(frames).permute(0, 3, 1, 2).to(self._device, torch.float32) / 127.5 - 1
        images = interpolate(images, sides, mode="bilinear", antialias=True)
        # What a pixel of the scaled frame is in pixels of the given one, along x and y.
        unit = torch.tensor([width / sides[1], height / sides[0]], device=self._device).view(1, 2, 1, 1)
        found = []
        with torch.inference_mode():
            for first in range(0, len(frames) - 1, self._pairs_at_once):
                before = images[first : first + self._pairs_at_once][: len(frames) - 1 - first]
                flow = self._network(before, images[first + 1 : first + 1 + len(before)])[-1] * unit
                length = flow.norm(dim=1, keepdim=True)
                found.append(interpolate(length, (height, width), mode="bilinear", antialias=True)[:, 0].cpu())
        magnitude: Floats = torch.cat(found).numpy() if found else np.empty((0, height, width), np.float32)
        return magnitude


def use_one_thread() -> None:
    """Keeps OpenCV to one thread; called in each of several worker processes."""
    cv2.setNumThreads(1)


FLOWS: dict[Literal["farneback", "frame_difference"], FlowMagnitude] = {
    "farneback": farneback,
    "frame_difference": frame_difference,
}
"""Those that need no weights."""


class MotionMeter:
    """Measures the motion of frames that come in order, some at a time.

    Args:
        height, width: the source's, whose pixels are the unit.
        flow: measures the motion between neighbouring frames.
        settings: sizes.

    Attributes:
        size: height and width that the frames are to be scaled to.
    """

    def __init__(self, height: int, width: int, *, flow: FlowMagnitude, settings: MotionSettings) -> None:
        self.size = settings.flow_size(height, width)
        self._grid_size = settings.grid_size(*self.size)
        # Flow is measured in the small frames' pixels; grey levels know no size.
        is_difference = settings.flow == "frame_difference"
        self._to_source = 1.0 if is_difference else (height * width / (self.size[0] * self.size[1])) ** 0.5
        self._flow = flow
        self._last: Bytes | None = None
        self._means: list[float] = []
        self._grids: list[NDArray[np.float16]] = []
        self._thumbnails: list[Bytes] = []

    def add(self, frames: Bytes) -> None:
        """Takes the next frames, uint8 ``[T, h, w, 3]`` of `size`."""
        joined = frames if self._last is None else np.concatenate([self._last, frames])
        for magnitude in self._flow(joined) * np.float32(self._to_source) if len(joined) > 1 else ():
            self._means.append(float(magnitude.mean()))
            # float16 ends at 65504; no flow is as long.
            self._grids.append(_shrunk(magnitude, self._grid_size).astype(np.float16))
        self._thumbnails += [_thumbnail(frame) for frame in frames]
        self._last = frames[-1:]

    def table(self) -> Motion:
        """The motion of all frames that came, of which there must be one."""
        # The last frame has no successor and repeats the one before; a single frame does not move.
        means = [*self._means, self._means[-1] if self._means else 0.0]
        grids = [*self._grids, self._grids[-1] if self._grids else np.zeros(self._grid_size, dtype=np.float16)]
        return Motion(np.array(means, dtype=np.float32), np.stack(grids), np.stack(self._thumbnails))


def compute_motion(
    reader: VideoReader, segment: Segment, *, flow: FlowMagnitude, settings: MotionSettings | None = None
) -> Motion:
    """Decodes a segment once, in order, and measures its motion.

    Args:
        reader: of the segment's file.
        segment: the stretch to measure.
        flow: measures the motion between neighbouring frames.
        settings: sizes; those of the default if None.

    Raises:
        UnreadableVideo: a frame does not decode.
    """
    meter = MotionMeter(segment.height, segment.width, flow=flow, settings=settings or MotionSettings())
    for start in range(0, segment.num_frames, FRAMES_AT_ONCE):
        stop = min(start + FRAMES_AT_ONCE, segment.num_frames)
        meter.add(reader.read(np.arange(start, stop) + segment.first_frame, size=meter.size))
    return meter.table()


def _shrunk(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Means over the cells of a grid of ``size`` (rows, columns)."""
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA))


def _thumbnail(frame: Bytes) -> Bytes:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    is_small = min(frame.shape[:2]) < THUMBNAIL_SIDE
    way = cv2.INTER_LINEAR if is_small else cv2.INTER_AREA
    return np.asarray(cv2.resize(grey, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=way), dtype=np.uint8)
