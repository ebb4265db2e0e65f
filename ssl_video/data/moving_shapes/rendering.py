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

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.moving_shapes.motions import displacements, saw
from ssl_video.data.moving_shapes.scene import (
    COVERS_SCENE,
    REFERENCE_SIZE,
    Array,
    Bytes,
    Floats,
    SceneSettings,
    wrapped,
)
from ssl_video.data.moving_shapes.textures import APPEARANCES, TEXELS_PER_PIXEL, TILE, look_up, texture_bank


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
        texture: float32 [TILE*TILE].
        origins: [2,2], where the texture starts in either copy, in texels.
        settings: The scene.
        lobes: Number of the rim's lobes.
    """
    size = settings.size
    texels = TEXELS_PER_PIXEL * REFERENCE_SIZE / size
    covers_scene = settings.object_scale >= COVERS_SCENE
    period = math.inf if covers_scene else size
    centre = pose[:, :2] if covers_scene else pose[:, :2] % size
    axis = np.arange(size, dtype=np.float32) + 0.5
    shape = (len(pose), size, size)
    dx = np.broadcast_to(wrapped(axis - centre[:, :1], period)[:, None, :].astype(np.float32), shape)
    dy = np.broadcast_to(wrapped(axis - centre[:, 1:], period)[:, :, None].astype(np.float32), shape)
    angle = (2 * math.pi * pose[:, 2])[:, None, None].astype(np.float32)
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    radius = 0.5 * settings.object_scale * size
    distance = None
    if not covers_scene:
        distance = np.hypot(u, v) / (radius * _rim(np.arctan2(v, u), lobes).astype(np.float32))
    opacity, values, power = (np.zeros(shape, dtype=np.float32) for _ in range(3))
    strongest, scale_of_strongest = np.zeros(len(pose)), np.ones(len(pose))
    for layer, (down, right) in zip((0.0, 0.5), origins, strict=True):
        octave = saw(pose[:, 3] + layer)
        weight = np.sin(math.pi * octave) ** 2
        scale = 2.0 ** (octave - 0.5)
        inverse = (texels / scale)[:, None, None].astype(np.float32)
        alpha = np.broadcast_to(weight[:, None, None].astype(np.float32), shape)
        if distance is not None:
            edge = (radius * (scale[:, None, None].astype(np.float32) - distance)).clip(-0.5, 0.5) + 0.5
            alpha = alpha * edge.astype(np.float32)
        values += alpha * look_up(texture, v * inverse + down, u * inverse + right)
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
        velocity = rng.normal(size=2) * size / REFERENCE_SIZE
        for frame in range(settings.num_frames):
            centre = start + velocity * frame + jitter[frame]
            dx, dy = wrapped(axis - centre[0], size)[None, :], wrapped(axis - centre[1], size)[:, None]
            inside = dx**2 + dy**2 < radius**2
            rows, columns = np.nonzero(inside)
            texels = TEXELS_PER_PIXEL * REFERENCE_SIZE / size
            values = look_up(texture, texels * dy[rows, 0], texels * dx[0, columns])
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
    bank = texture_bank(settings.textures_per_appearance, bank_seed)
    size, unit = settings.size, settings.size / REFERENCE_SIZE
    times = np.arange(settings.num_frames, dtype=np.float64)
    path = displacements(motion, times, settings, rng)
    path[:, :2] *= unit
    # Uniform on torus, circle and octave: this is what hides the motion from a single frame.
    start = rng.random(4) * np.array([size, size, 1.0, 1.0])
    origins = (rng.random((2, 2)) * TILE).astype(np.float32)
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
    texels = TEXELS_PER_PIXEL / unit
    shift = origin - jitter
    ground_rows = np.broadcast_to((axis + shift[:, 1:])[:, :, None] * texels, opacity.shape)
    ground_columns = np.broadcast_to((axis + shift[:, :1])[:, None, :] * texels, opacity.shape)
    contrast = settings.texture_contrast
    canvas = _paint(contrast * values, object_colours)
    if opacity.min() < 1.0:
        ground = _paint(contrast * look_up(behind, ground_rows, ground_columns), background_colours)
        canvas = ground + opacity[..., None] * (canvas - ground)
    masks = opacity > 0.5
    _distractors(canvas, masks, jitter, bank, settings, rng)
    if settings.pixel_noise:
        canvas += settings.pixel_noise * rng.standard_normal(canvas.shape, dtype=np.float32)
    frames = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return RenderedVideo(frames, masks, boxes, keypoints)
