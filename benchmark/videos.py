"""Videos for the timings: filmed-looking content that costs as much to decode as files of the usual data sets.

Real files may not lie in the repository, and plain shapes decode far too quickly. So a camera wanders over a textured
plane (pan, zoom, a little shake) on which textured patches move, with sensor noise on top; x264's default preset
makes of it what data sets hold: about 1 MB for ten seconds of 340x256, B-frames, a keyframe every 250 frames.
The same seed gives the same file wherever the same FFmpeg encodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

STOCK_SIZE = (256, 340)
PREPARED_SHORT_SIDE = 128
FPS = 25
NUM_FRAMES = 250
NUM_PATCHES = 6
NOISE_LEVELS = 2.0
# About two frames in five are such as no other frame needs, as x264's defaults have it.
# Without mbtree, with which the same pictures have been seen to give other bits from one run to the next.
STOCK_OPTIONS = {"preset": "medium", "crf": "21", "x264-params": "mbtree=0"}
PREPARED_OPTIONS = {"preset": "medium", "crf": "18", "x264-params": "mbtree=0"}


def stock_video(path: Path, seed: int, *, num_frames: int = NUM_FRAMES, keyframe_spacing: int = 250) -> Path:
    """Writes an H.264 file of 340x256 as data sets are usually handed on: one keyframe in ten seconds.

    Args:
        path: where; its ending is the container.
        seed: of the content.
        num_frames: at 25 frames per second.
        keyframe_spacing: frames from one keyframe to the next at most.

    Returns:
        The path.
    """
    frames = filmed(seed, num_frames=num_frames, size=STOCK_SIZE)
    return _encode(path, frames, size=STOCK_SIZE, options=STOCK_OPTIONS, keyframe_spacing=keyframe_spacing)


def prepared_video(
    path: Path,
    seed: int,
    *,
    num_frames: int = NUM_FRAMES,
    keyframe_spacing: int = 16,
    short_side: int = PREPARED_SHORT_SIDE,
) -> Path:
    """Writes the same content at a small size with many keyframes, as ``ssl-video prepare`` makes of a stock file."""
    height, width = STOCK_SIZE
    size = (short_side, round(width * short_side / height / 2) * 2)
    frames = (
        np.asarray(cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
        for frame in filmed(seed, num_frames=num_frames, size=STOCK_SIZE)
    )
    return _encode(path, frames, size=size, options=PREPARED_OPTIONS, keyframe_spacing=keyframe_spacing)


def filmed(seed: int, *, num_frames: int, size: tuple[int, int]) -> Iterator[Picture]:
    """Yields the pictures of one video, uint8 [height, width, 3], RGB."""
    rng = np.random.default_rng(seed)
    height, width = size
    plane = _texture(rng, 2 * max(size))
    patches = [_texture(rng, int(rng.integers(height // 5, height // 2))) for _ in range(NUM_PATCHES)]
    camera, paths = _Wandering(rng, 5), [_Wandering(rng, 2) for _ in patches]
    noise = rng.normal(0.0, NOISE_LEVELS, (height + 64, width + 64, 1)).astype(np.float32)
    for number in range(num_frames):
        seconds = number / FPS
        picture = _seen(plane, camera(seconds), size)
        for patch, way in zip(patches, paths, strict=True):
            _put(picture, patch, way(seconds))
        top, left = rng.integers(0, 64, 2)
        noisy = picture + noise[top : top + height, left : left + width]
        yield np.clip(noisy, 0, 255).astype(np.uint8)


class _Wandering:
    """Smooth motion: a few sines per coordinate, in -1..1."""

    def __init__(self, rng: np.random.Generator, dimensions: int) -> None:
        self.periods = rng.uniform(2.5, 14.0, (dimensions, 3))
        self.phases = rng.uniform(0, 2 * np.pi, (dimensions, 3))
        self.weights = rng.dirichlet(np.ones(3), dimensions)

    def __call__(self, seconds: float) -> NDArray[np.float64]:
        waves: NDArray[np.float64] = np.sin(2 * np.pi * seconds / self.periods + self.phases)
        coordinates: NDArray[np.float64] = (self.weights * waves).sum(axis=1)
        return coordinates


def _texture(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Colour noise whose power falls with frequency as that of photographs, float32 [side, side, 3] in 0..255."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1.0
    channels = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.normal(size=(side, side))) / frequency**1.1
        channels.append(np.fft.irfft2(spectrum, (side, side)))
    grey, *tints = channels
    colour = np.stack([grey, grey + 0.4 * tints[0], grey + 0.4 * tints[1]], axis=2)
    colour = (colour - colour.mean()) / colour.std()
    return np.asarray(np.clip(127 + 50 * colour, 0, 255), dtype=np.float32)


def _seen(plane: NDArray[np.float32], pose: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """What the camera sees of the plane: it pans, zooms, turns and shakes."""
    height, width = size
    side = len(plane)
    across, down, zoom, turn, shake = pose
    scale = 1.0 + 0.15 * zoom
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 4.0 * turn, 1.0)
    matrix[:, :2] *= scale
    matrix[0, 2] += side / 4 + 0.2 * side * across + shake
    matrix[1, 2] += side / 4 + 0.2 * side * down - shake
    seen = cv2.warpAffine(
        plane, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(seen, dtype=np.float32)


def _put(picture: NDArray[np.float32], patch: NDArray[np.float32], place: NDArray[np.float64]) -> None:
    """Lays a round patch onto the picture, centred at a place in -1..1 of it, by fractions of a pixel."""
    height, width = picture.shape[:2]
    side = len(patch)
    left, top = (place + 1) / 2 * (width, height) - side / 2
    matrix = np.array([[1, 0, left], [0, 1, top]])
    round_mask = np.zeros((side, side), dtype=np.float32)
    cv2.circle(round_mask, (side // 2, side // 2), side // 2 - 1, 1.0, thickness=-1)
    first = (max(0, int(top)), max(0, int(left)))
    last = (min(height, int(top) + side + 2), min(width, int(left) + side + 2))
    if last[0] <= first[0] or last[1] <= first[1]:
        return
    matrix[:, 2] -= (first[1], first[0])
    shape = (last[1] - first[1], last[0] - first[0])
    mask = cv2.warpAffine(round_mask, matrix, shape)[..., None]
    region = picture[first[0] : last[0], first[1] : last[1]]
    region += mask * (cv2.warpAffine(patch, matrix, shape) - region)


def _encode(
    path: Path, frames: Iterator[Picture], *, size: tuple[int, int], options: dict[str, str], keyframe_spacing: int
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = keyframe_spacing
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
