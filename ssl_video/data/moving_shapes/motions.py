"""Motions as paths of displacements, which a pose is moved by."""

import math

import numpy as np

from ssl_video.data.moving_shapes.scene import Array, SceneSettings

MOTIONS = ("steady", "bouncing", "circling", "zigzag", "spinning", "growing", "shrinking", "still")
"""The motions drawn by default; `growing` and `shrinking` are each other's time reversal."""

ALL_MOTIONS = (*MOTIONS, "accelerating", "decelerating")
"""With a second, harder pair of reversals, `accelerating` and `decelerating`."""

_PERIOD = 16.0  # frames, of motions that repeat, at speed 1


def saw(phase: Array) -> Array:
    """A saw tooth of period 1 from 0 to 1."""
    return phase % 1.0


def _triangle(phase: Array) -> Array:
    """A triangle wave of period 1 between -1 and 1."""
    return 1.0 - 4.0 * np.abs(saw(phase) - 0.5)


def displacements(motion: str, times: Array, settings: SceneSettings, rng: np.random.Generator) -> Array:
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
        along = direction * 0.8 * velocity * period * (np.floor(forward) + saw(forward) ** 3)
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
