"""What the scenes of a data set are like, and the torus that they lie on."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of floats, in the precision that comes
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

COVERS_SCENE = 1.5  # object_scale from which the object has no rim and fills the frame
REFERENCE_SIZE = 64.0  # lengths of motions and textures are in pixels of a frame of this side


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


def wrapped(difference: Array, period: float) -> Array:
    """The representative of `difference` in [-period/2, period/2); an infinite period leaves it alone."""
    if math.isinf(period):
        return difference
    return (difference + period / 2) % period - period / 2
