"""The embedded data set: short videos whose motion says one thing and whose every single frame says nothing of it.

A video shows one textured object in front of a textured background. Its pose (place on a torus, angle on a circle,
size on a circle of octaves) starts at a uniformly drawn point, and a motion is a path of displacements added to that
point. A uniform point plus any displacement is uniform again, so at every time the pose has the same distribution
whatever the motion: the motion label cannot be read from one frame, at the start, the middle or the end.

Growth without end is drawn as in Shepard's endless scale: two copies of the object, half an octave apart, of which each
fades in while small and out while large. All motions are drawn so, moving in size or not.

By default videos of one appearance differ little in their looks (one texture, near-grey colours), so that telling
videos apart means telling how they move. `textures_per_appearance`, `colour_spread` and a small `object_scale` make it
harder.
"""

import csv
import math
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ssl_video.utils.errors import InputError
from ssl_video.utils.progress import with_progress

Array = NDArray[Any]  # of floats, in the precision that comes
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

MOTIONS = ("steady", "bouncing", "circling", "zigzag", "spinning", "growing", "shrinking", "still")
"""The motions drawn by default; `growing` and `shrinking` are each other's time reversal."""

GENERATOR_VERSION = 1  # to be raised when equal arguments give other videos
ALL_MOTIONS = (*MOTIONS, "accelerating", "decelerating")
"""With a second, harder pair of reversals, `accelerating` and `decelerating`."""

COVERS_SCENE = 1.5  # object_scale from which the object has no rim and fills the frame
APPEARANCES = ("clouds", "contours", "cells", "islands", "grain")

_TILE = 256  # texels on the side of a texture, which repeats without a seam
_TEXELS_PER_PIXEL = 2.0  # at a frame of 64 pixels
_PERIOD = 16.0  # frames, of motions that repeat, at speed 1
_REFERENCE_SIZE = 64.0  # lengths below are in pixels of a frame of this side


@dataclass(frozen=True)
class SceneSettings:
    """What a video looks like and how hard it is; lengths are fractions of the frame's side.

    Attributes:
        size: Height and width of a frame in pixels; even, as 4:2:0 video needs.
        num_frames: Frames of a video.
        object_scale: Diameter of the moving object. From 1.5 on it covers the whole scene; small ones are hard.
        speed: Path per frame, multiplies every motion's speed (pixels, turns, octaves).
        speed_spread: How far the speeds of videos differ, as a share of the mean; more tells videos apart by speed.
        camera_jitter: Standard deviation of the camera's shake, drawn anew for each frame.
        num_distractors: Small textured discs that cross the scene at constant velocities of their own.
        distractor_scale: Their diameter.
        texture_contrast: 1 is full contrast, 0 flat colours.
        colour_spread: How far the colours of videos differ; 0 is the same two greys in all, 1 any hue.
        textures_per_appearance: How many different textures an appearance has; few make videos hard to tell apart
            by their looks alone.
        pixel_noise: Standard deviation of white noise on the pixels, in levels of 255.
    """

    size: int = 64
    num_frames: int = 48
    object_scale: float = 1.5
    speed: float = 1.0
    speed_spread: float = 0.33
    camera_jitter: float = 0.005
    num_distractors: int = 1
    distractor_scale: float = 0.15
    texture_contrast: float = 1.0
    colour_spread: float = 0.2
    textures_per_appearance: int = 1
    pixel_noise: float = 2.0


@dataclass(frozen=True)
class RenderedVideo:
    """Frames and their annotations.

    Attributes:
        frames: uint8 [T,H,W,3], RGB.
        masks: bool [T,H,W], visible pixels of the object (all its copies on the torus, less the distractors).
        boxes: float32 [T,4], left, top, right, bottom in pixels of the copy whose centre is in the frame, cut at the
            frame's edge.
        keypoints: float32 [T,5,3], x, y in pixels and 1 where inside the frame: the centre and four rim points.
    """

    frames: Bytes
    masks: NDArray[np.bool_]
    boxes: Floats
    keypoints: Floats


# ---------------------------------------------------------------------------------------------------- textures


def _blur(tile: Floats, sigma: float) -> Floats:
    """Gaussian blur of a repeating tile, sigma in texels."""
    frequency = np.fft.fftfreq(_TILE)
    gain = np.exp(-2.0 * (math.pi * sigma) ** 2 * (frequency[:, None] ** 2 + frequency[None, :] ** 2))
    return np.fft.ifft2(np.fft.fft2(tile) * gain).real.astype(np.float32)


def _wrapped(difference: Array, period: float) -> Array:
    """The representative of `difference` in [-period/2, period/2); an infinite period leaves it alone."""
    if math.isinf(period):
        return difference
    return (difference + period / 2) % period - period / 2


def _offsets(points: Array) -> tuple[Floats, Floats]:
    """Vertical and horizontal distances [P,_TILE] of texel rows and columns from points [P,2] on the torus."""
    axis = np.arange(_TILE, dtype=np.float32)
    return (
        _wrapped(axis[None] - points[:, :1], _TILE).astype(np.float32),
        _wrapped(axis[None] - points[:, 1:], _TILE).astype(np.float32),
    )


def _noise(rng: np.random.Generator, sigma: float) -> Floats:
    """Blurred white noise of unit deviation."""
    noise = _blur(rng.standard_normal((_TILE, _TILE)).astype(np.float32), sigma)
    result: Floats = noise / noise.std()
    return result


def _clouds(rng: np.random.Generator) -> Floats:
    return _noise(rng, 3.5)


def _contours(rng: np.random.Generator) -> Floats:
    result: Floats = np.sin(3.0 * _noise(rng, 3.5))
    return result


def _cells(rng: np.random.Generator) -> Floats:
    rows, columns = _offsets(rng.random((500, 2)) * _TILE)
    nearest = np.argmin(rows[:, :, None] ** 2 + columns[:, None, :] ** 2, axis=0)
    levels: Floats = rng.standard_normal(500).astype(np.float32)[nearest]
    return levels


def _islands(rng: np.random.Generator) -> Floats:
    result: Floats = np.tanh(4.0 * _noise(rng, 3.5))
    return result


def _grain(rng: np.random.Generator) -> Floats:
    return _noise(rng, 2.2) + _noise(rng, 7.0)


# All are random fields without a direction, as bright as they are dark: they tell the appearance, not the video.
_TEXTURES = {"clouds": _clouds, "contours": _contours, "cells": _cells, "islands": _islands, "grain": _grain}


@lru_cache(maxsize=1)
def _texture_bank(per_appearance: int, seed: int) -> Floats:
    """Textures float32 [A,per_appearance,_TILE*_TILE], zero mean, about -0.5 to 0.5."""
    bank = np.empty((len(APPEARANCES), per_appearance, _TILE * _TILE), dtype=np.float32)
    for family, name in enumerate(APPEARANCES):
        for number in range(per_appearance):
            tile = _blur(_TEXTURES[name](np.random.default_rng([seed, 1, family, number])), 1.2)
            tile = 0.33 * (tile - tile.mean()) / tile.std()
            bank[family, number] = np.clip(tile, -0.5, 0.5).ravel()
    return bank


def _look_up(texture: Floats, y: Array, x: Array) -> Floats:
    """Nearest texels at coordinates in texels; the texture is finer than the pixels and blurred: that is smooth."""
    rows = np.floor(y).astype(np.int32) & (_TILE - 1)
    columns = np.floor(x).astype(np.int32) & (_TILE - 1)
    return texture[rows * _TILE + columns]


# ---------------------------------------------------------------------------------------------------- motions


def _saw(phase: Array) -> Array:
    return phase % 1.0


def _triangle(phase: Array) -> Array:
    """A triangle wave of period 1 between -1 and 1."""
    return 1.0 - 4.0 * np.abs(_saw(phase) - 0.5)


def _path(motion: str, times: Array, settings: SceneSettings, rng: np.random.Generator) -> Array:
    """Displacements [T,4] of a motion: x and y in pixels of the reference size, turns, octaves.

    Every motion draws the same numbers, so that the draws after it do not depend on it.
    """
    velocity = 2.4 * settings.speed * (1.0 + settings.speed_spread * rng.uniform(-1.0, 1.0))
    heading, phase = rng.random(2)
    sense = float(rng.choice([-1.0, 1.0]))
    period = _PERIOD / settings.speed * (1.0 + settings.speed_spread * rng.uniform(-1.0, 1.0))
    cycle = times / period + phase
    along, across = np.zeros_like(times), np.zeros_like(times)
    turns, octaves = np.zeros_like(times), np.zeros_like(times)
    if motion == "steady":
        along = velocity * times
    elif motion in ("accelerating", "decelerating"):
        # Surges: the speed climbs from nothing and drops, again and again, so that any short clip shows it.
        direction = 1.0 if motion == "accelerating" else -1.0
        forward = direction * cycle
        along = direction * 0.8 * velocity * period * (np.floor(forward) + _saw(forward) ** 3)
    elif motion == "bouncing":
        along = velocity * period / 4.0 * _triangle(cycle)
    elif motion == "circling":
        radius = 1.5 * velocity * period / (2.0 * math.pi)
        along, across = radius * np.cos(2 * math.pi * cycle), sense * radius * np.sin(2 * math.pi * cycle)
    elif motion == "zigzag":
        along, across = 0.7 * velocity * times, 0.7 * velocity * period / 4.0 * _triangle(cycle)
    elif motion == "spinning":
        turns = sense * times / (2.0 * period)
    elif motion in ("growing", "shrinking"):
        octaves = (1.0 if motion == "growing" else -1.0) * times / period
    angle = 2 * math.pi * heading
    x = along * math.cos(angle) - across * math.sin(angle)
    y = along * math.sin(angle) + across * math.cos(angle)
    return np.stack([x, y, turns, octaves], axis=1)


# ---------------------------------------------------------------------------------------------------- rendering


def _colours(spread: float, rng: np.random.Generator) -> Floats:
    """Two colours [2,3] in levels, luminances far enough apart for the texture to show in grey.

    Without spread they are the same two greys in every video; with a spread of 1 any hues, brighter or darker.
    """
    weights = np.array([0.299, 0.587, 0.114])
    hue = spread * (rng.random((2, 3)) - 0.5)
    targets = np.array([0.25, 0.75]) + 0.1 * spread * rng.uniform(-1.0, 1.0, size=2)
    pair = hue - (hue @ weights)[:, None] + targets[:, None]
    if rng.random() < 0.5:
        pair = pair[::-1]
    result: Floats = (255.0 * np.clip(pair, 0.0, 1.0)).astype(np.float32)
    return result


def _paint(values: Floats, colours: Floats) -> Floats:
    """Texture values [...] about -0.5 to 0.5 to colours [...,3]."""
    result: Floats = colours[0] + (values[..., None] + 0.5) * (colours[1] - colours[0])
    return result


def _rim(angle: Array, lobes: int) -> Array:
    """The object's radius at an angle, as a fraction of its largest; lobes make its turning visible."""
    result: Array = 0.9 + 0.1 * np.cos(lobes * angle)
    return result


def _object(
    pose: Array, texture: Floats, origins: Floats, settings: SceneSettings, lobes: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Opacity and texture values [T,H,W] of the object on the torus, its boxes [T,4] and keypoints [T,5,3].

    Args:
        pose: [T,4], x and y in pixels, turns, octaves.
        texture: float32 [_TILE*_TILE].
        origins: [2,2], where the texture starts in either copy, in texels.
        settings: The scene.
        lobes: Number of the rim's lobes.
    """
    size = settings.size
    texels = _TEXELS_PER_PIXEL * _REFERENCE_SIZE / size
    covers_scene = settings.object_scale >= COVERS_SCENE
    period = math.inf if covers_scene else size
    centre = pose[:, :2] if covers_scene else pose[:, :2] % size
    axis = np.arange(size, dtype=np.float32) + 0.5
    shape = (len(pose), size, size)
    dx = np.broadcast_to(_wrapped(axis - centre[:, :1], period)[:, None, :].astype(np.float32), shape)
    dy = np.broadcast_to(_wrapped(axis - centre[:, 1:], period)[:, :, None].astype(np.float32), shape)
    angle = (2 * math.pi * pose[:, 2])[:, None, None].astype(np.float32)
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    radius = 0.5 * settings.object_scale * size
    distance = None
    if not covers_scene:
        distance = np.hypot(u, v) / (radius * _rim(np.arctan2(v, u), lobes).astype(np.float32))
    opacity, values, power = (np.zeros(shape, dtype=np.float32) for _ in range(3))
    strongest, scale_of_strongest = np.zeros(len(pose)), np.ones(len(pose))
    for layer, (down, right) in zip((0.0, 0.5), origins, strict=True):
        octave = _saw(pose[:, 3] + layer)
        weight = np.sin(math.pi * octave) ** 2
        scale = 2.0 ** (octave - 0.5)
        inverse = (texels / scale)[:, None, None].astype(np.float32)
        alpha = np.broadcast_to(weight[:, None, None].astype(np.float32), shape)
        if distance is not None:
            edge = (radius * (scale[:, None, None].astype(np.float32) - distance)).clip(-0.5, 0.5) + 0.5
            alpha = alpha * edge.astype(np.float32)
        values += alpha * _look_up(texture, v * inverse + down, u * inverse + right)
        opacity += alpha
        power += alpha**2
        scale_of_strongest = np.where(weight > strongest, scale, scale_of_strongest)
        strongest = np.maximum(weight, strongest)
    values /= np.sqrt(np.maximum(power, 1e-6))  # two faded copies keep the contrast of one
    main_copy = (np.abs(axis - centre[:, :1]) <= period / 2)[:, None, :] & (np.abs(axis - centre[:, 1:]) <= period / 2)[
        :, :, None
    ]
    boxes = _boxes((opacity > 0.5) & main_copy)
    return opacity, values, boxes, _keypoints(pose, centre, radius * scale_of_strongest, lobes, size)


def _boxes(masks: NDArray[np.bool_]) -> Floats:
    """Left, top, right, bottom [T,4] of masks [T,H,W]; zeros where a mask is empty."""
    boxes = np.zeros((len(masks), 4), dtype=np.float32)
    for line, (low, high) in ((np.any(masks, axis=1), (0, 2)), (np.any(masks, axis=2), (1, 3))):
        boxes[:, low] = line.argmax(axis=1)
        boxes[:, high] = np.where(np.any(line, axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1), 0)
    return boxes


def _keypoints(pose: Array, centre: Array, radius: Array, lobes: int, size: int) -> Floats:
    """The centre and the rim points at quarter turns, [T,5,3]."""
    own = np.arange(4) * math.pi / 2
    angle = own[None] + 2 * math.pi * pose[:, 2:3]
    reach = radius[:, None] * _rim(own, lobes)[None]
    points = np.empty((len(pose), 5, 3), dtype=np.float32)
    points[:, 0, :2] = centre
    points[:, 1:, 0] = centre[:, :1] + reach * np.cos(angle)
    points[:, 1:, 1] = centre[:, 1:] + reach * np.sin(angle)
    points[..., 2] = ((points[..., :2] >= 0) & (points[..., :2] < size)).all(axis=-1)
    return points


def _distractors(
    canvas: Floats,
    masks: NDArray[np.bool_],
    jitter: Floats,
    bank: Floats,
    settings: SceneSettings,
    rng: np.random.Generator,
) -> None:
    """Draws the distractors over `canvas` [T,H,W,3] and takes them out of `masks` [T,H,W], both in place."""
    size = settings.size
    axis = np.arange(size, dtype=np.float32) + 0.5
    radius = 0.5 * settings.distractor_scale * size
    for _ in range(settings.num_distractors):
        texture = bank[rng.integers(len(bank)), rng.integers(bank.shape[1])]
        colours, start = _colours(settings.colour_spread, rng), rng.random(2) * size
        velocity = rng.normal(size=2) * size / _REFERENCE_SIZE
        for frame in range(settings.num_frames):
            centre = start + velocity * frame + jitter[frame]
            dx, dy = _wrapped(axis - centre[0], size)[None, :], _wrapped(axis - centre[1], size)[:, None]
            inside = dx**2 + dy**2 < radius**2
            rows, columns = np.nonzero(inside)
            texels = _TEXELS_PER_PIXEL * _REFERENCE_SIZE / size
            values = _look_up(texture, texels * dy[rows, 0], texels * dx[0, columns])
            canvas[frame, rows, columns] = _paint(values, colours)
            masks[frame][inside] = False


def render_video(
    motion: str, appearance: str, *, settings: SceneSettings, video_seed: Sequence[int], bank_seed: int = 0
) -> RenderedVideo:
    """Draws one video.

    Args:
        motion: One of `ALL_MOTIONS`.
        appearance: One of `APPEARANCES`, the object's family of textures.
        settings: The scene.
        video_seed: Seeds everything that differs between videos.
        bank_seed: Seeds the textures, which the videos of a data set share.
    """
    rng = np.random.default_rng(video_seed)
    bank = _texture_bank(settings.textures_per_appearance, bank_seed)
    size, unit = settings.size, settings.size / _REFERENCE_SIZE
    times = np.arange(settings.num_frames, dtype=np.float64)
    path = _path(motion, times, settings, rng)
    path[:, :2] *= unit
    # Uniform on torus, circle and octave: this is what hides the motion from a single frame.
    start = rng.random(4) * np.array([size, size, 1.0, 1.0])
    origins = (rng.random((2, 2)) * _TILE).astype(np.float32)
    if settings.object_scale >= COVERS_SCENE:
        # The uniform origins hide the place already; turning and growing are about a point near the middle.
        start[:2] = size * (0.35 + 0.3 * start[:2] / size)
    else:
        origins[1] = origins[0]
    pose = path + start
    jitter = (rng.normal(size=(settings.num_frames, 2)) * settings.camera_jitter * size).astype(np.float32)
    pose[:, :2] += jitter
    texture = bank[APPEARANCES.index(appearance), rng.integers(bank.shape[1])]
    behind = bank[rng.integers(len(bank)), rng.integers(bank.shape[1])]
    object_colours, background_colours = (_colours(settings.colour_spread, rng) for _ in range(2))
    origin, lobes = rng.random(2) * size, int(rng.integers(3, 6))

    opacity, values, boxes, keypoints = _object(pose, texture, origins, settings, lobes)
    axis = np.arange(size, dtype=np.float32) + 0.5
    texels = _TEXELS_PER_PIXEL / unit
    shift = origin - jitter
    ground_rows = np.broadcast_to((axis + shift[:, 1:])[:, :, None] * texels, opacity.shape)
    ground_columns = np.broadcast_to((axis + shift[:, :1])[:, None, :] * texels, opacity.shape)
    contrast = settings.texture_contrast
    canvas = _paint(contrast * values, object_colours)
    if opacity.min() < 1.0:
        ground = _paint(contrast * _look_up(behind, ground_rows, ground_columns), background_colours)
        canvas = ground + opacity[..., None] * (canvas - ground)
    masks = opacity > 0.5
    _distractors(canvas, masks, jitter, bank, settings, rng)
    if settings.pixel_noise:
        canvas += settings.pixel_noise * rng.standard_normal(canvas.shape, dtype=np.float32)
    frames = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return RenderedVideo(frames, masks, boxes, keypoints)


# ---------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class _Row:
    """One line of labels.csv and where its files go, relative to the data set's root."""

    number: int
    motion: str
    appearance: str
    split: str

    @property
    def name(self) -> str:
        return f"{self.number:05d}"

    @property
    def path(self) -> str:
        return f"videos/{self.name}.mp4"


def plan(*, num_videos: int, motions: Sequence[str] = MOTIONS, test_fraction: float = 0.2, seed: int = 0) -> list[_Row]:
    """Which video has which labels and split.

    Motion and appearance are crossed, and each pair has its share of the test split, so that the two labels are
    independent in either split (exactly where the counts divide). The order of the files is random.
    """
    rng = np.random.default_rng([seed, 2])
    pairs = len(motions) * len(APPEARANCES)
    place = rng.permutation(num_videos)
    rows = []
    for number, cell in enumerate(place.tolist()):
        motion, appearance = motions[cell % len(motions)], APPEARANCES[cell // len(motions) % len(APPEARANCES)]
        # Rounds of all pairs go to test at evenly spread places.
        # Where a round is incomplete its videos are split like the others of their round.
        turn = cell // pairs if num_videos * test_fraction >= pairs else cell  # too few to balance: by video
        test = math.floor((turn + 1) * test_fraction + 1e-9) > math.floor(turn * test_fraction + 1e-9)
        rows.append(_Row(number, motion, appearance, "test" if test else "train"))
    return rows


def write_mp4(path: Path, frames: Bytes, *, fps: int = 25, crf: int = 18, keyframe_interval: int = 12) -> None:
    """Writes uint8 [T,H,W,3] as H.264 without B-frames; one thread, so that equal frames give equal files."""
    with av.open(str(path), mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = keyframe_interval
        stream.codec_context.max_b_frames = 0
        stream.options = {"crf": str(crf), "preset": "veryfast"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _write_video(row: _Row, *, root: Path, settings: SceneSettings, seed: int) -> None:
    """Writes one video and its annotations."""
    video = render_video(
        row.motion, row.appearance, settings=settings, video_seed=(seed, 3, row.number), bank_seed=seed
    )
    write_mp4(root / row.path, video.frames)
    np.savez_compressed(
        root / "annotations" / f"{row.name}.npz", masks=video.masks, boxes=video.boxes, keypoints=video.keypoints
    )


def _check(num_videos: int, motions: Sequence[str], test_fraction: float, settings: SceneSettings) -> None:
    unknown = sorted(set(motions) - set(ALL_MOTIONS))
    if unknown or len(set(motions)) != len(motions) or not motions:
        raise InputError(f"motions={list(motions)} must be distinct names out of {list(ALL_MOTIONS)}.")
    if num_videos < 1:
        raise InputError(f"num_videos={num_videos} must be at least 1.")
    if not 0.0 <= test_fraction < 1.0:
        raise InputError(f"test_fraction={test_fraction} must lie in [0, 1); 0 makes no test split.")
    if settings.size < 16 or settings.size % 2:
        raise InputError(f"size={settings.size} must be even and at least 16, as 4:2:0 video needs.")
    if settings.num_frames < 1:
        raise InputError(f"num_frames={settings.num_frames} must be at least 1; a video has one frame or more.")
    if settings.object_scale <= 0 or settings.speed <= 0:
        raise InputError(f"object_scale={settings.object_scale} and speed={settings.speed} must be above 0.")
    if settings.textures_per_appearance < 1:
        raise InputError(f"textures_per_appearance={settings.textures_per_appearance} must be at least 1.")


def make_moving_shapes(
    root: Path,
    *,
    num_videos: int = 600,
    size: int = 64,
    num_frames: int = 48,
    motions: Sequence[str] = MOTIONS,
    object_scale: float = 1.5,
    speed: float = 1.0,
    speed_spread: float = 0.33,
    camera_jitter: float = 0.005,
    num_distractors: int = 1,
    distractor_scale: float = 0.15,
    texture_contrast: float = 1.0,
    colour_spread: float = 0.2,
    textures_per_appearance: int = 1,
    pixel_noise: float = 2.0,
    test_fraction: float = 0.2,
    num_workers: int = 2,
    seed: int = 0,
) -> None:
    """Writes the data set to `root`: videos/*.mp4, annotations/*.npz and labels.csv.

    labels.csv has the columns path, motion, appearance, split and group (every video is its own group). An annotation
    file holds masks, boxes and keypoints as `RenderedVideo` describes them. The folder appears when it is complete;
    one that is there already is left alone. Equal arguments give equal frames; `num_workers` changes nothing.

    Args:
        root: The folder to make.
        num_videos: Videos in all; a multiple of 200 is balanced exactly at the defaults.
        size: See `SceneSettings`, as for all up to `pixel_noise` but `motions`.
        num_frames: Frames of a video, at 25 per second.
        motions: The motion classes, out of `ALL_MOTIONS`.
        object_scale: Diameter of the moving object as a share of the frame.
        speed: Multiplies every motion's speed.
        speed_spread: How far speeds differ between videos, as a share.
        camera_jitter: Standard deviation of the camera's shake as a share of the frame.
        num_distractors: Small discs that cross the scene.
        distractor_scale: Their diameter as a share of the frame.
        texture_contrast: 1 is full contrast, 0 flat colours.
        colour_spread: How far the colours of videos differ.
        textures_per_appearance: How many different textures an appearance has.
        pixel_noise: Standard deviation of the noise, in levels of 255.
        test_fraction: Share of the videos whose split is test, drawn alike from each pair of labels.
        num_workers: Processes that draw and encode; above 1 they are spawned, so a script that calls this needs the
            usual `if __name__ == "__main__":`.
        seed: Seeds the textures, the videos and the split.

    Raises:
        InputError: An argument is out of range, or `root` exists and is no such data set.
    """
    settings = SceneSettings(
        size=size,
        num_frames=num_frames,
        object_scale=object_scale,
        speed=speed,
        speed_spread=speed_spread,
        camera_jitter=camera_jitter,
        num_distractors=num_distractors,
        distractor_scale=distractor_scale,
        texture_contrast=texture_contrast,
        colour_spread=colour_spread,
        textures_per_appearance=textures_per_appearance,
        pixel_noise=pixel_noise,
    )
    _check(num_videos, motions, test_fraction, settings)
    root = Path(root)
    if (root / "labels.csv").exists():
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and has no labels.csv; name a folder that does not exist, or remove it.")
    root.parent.mkdir(parents=True, exist_ok=True)
    rows = plan(num_videos=num_videos, motions=motions, test_fraction=test_fraction, seed=seed)
    building = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        _write_all(rows, building, settings=settings, seed=seed, num_workers=num_workers)
        _publish(building, root)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_all(rows: list[_Row], root: Path, *, settings: SceneSettings, seed: int, num_workers: int) -> None:
    """Writes every file of the data set into `root`, labels.csv last."""
    (root / "videos").mkdir()
    (root / "annotations").mkdir()
    write = partial(_write_video, root=root, settings=settings, seed=seed)
    progress = partial(with_progress, total=len(rows), title="moving_shapes", unit="video")
    if num_workers > 1 and len(rows) > 8:
        # Spawned, not forked: the caller may hold threads (torch, a video reader), which a fork would break.
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            for _ in progress(pool.map(write, rows, chunksize=4)):
                pass
    else:
        for _ in progress(map(write, rows)):
            pass
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "motion", "appearance", "split", "group"])
        table.writerows([row.path, row.motion, row.appearance, row.split, row.name] for row in rows)


def _publish(building: Path, root: Path) -> None:
    """Renames the finished folder to `root`; when another process was faster, its equal folder stays."""
    building.chmod(0o755)
    try:
        building.rename(root)
    except OSError:
        if not (root / "labels.csv").exists():
            raise
