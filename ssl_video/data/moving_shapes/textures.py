"""Textures that repeat without a seam; a family of them is an appearance."""

import math
from functools import lru_cache

import numpy as np

from ssl_video.data.moving_shapes.scene import Array, Floats, wrapped

APPEARANCES = ("clouds", "contours", "cells", "islands", "grain")
TILE = 256  # texels on the side of a texture
TEXELS_PER_PIXEL = 2.0  # at a frame of 64 pixels


def _blur(tile: Floats, sigma: float) -> Floats:
    """Gaussian blur of a repeating tile, sigma in texels."""
    frequency = np.fft.fftfreq(TILE)
    gain = np.exp(-2.0 * (math.pi * sigma) ** 2 * (frequency[:, None] ** 2 + frequency[None, :] ** 2))
    return np.fft.ifft2(np.fft.fft2(tile) * gain).real.astype(np.float32)


def _offsets(points: Array) -> tuple[Floats, Floats]:
    """Vertical and horizontal distances [P,TILE] of texel rows and columns from points [P,2] on the torus."""
    axis = np.arange(TILE, dtype=np.float32)
    return (
        wrapped(axis[None] - points[:, :1], TILE).astype(np.float32),
        wrapped(axis[None] - points[:, 1:], TILE).astype(np.float32),
    )


def _noise(rng: np.random.Generator, sigma: float) -> Floats:
    """Blurred white noise of unit deviation."""
    noise = _blur(rng.standard_normal((TILE, TILE)).astype(np.float32), sigma)
    result: Floats = noise / noise.std()
    return result


def _clouds(rng: np.random.Generator) -> Floats:
    return _noise(rng, 3.5)


def _contours(rng: np.random.Generator) -> Floats:
    result: Floats = np.sin(3.0 * _noise(rng, 3.5))
    return result


def _cells(rng: np.random.Generator) -> Floats:
    rows, columns = _offsets(rng.random((500, 2)) * TILE)
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
def texture_bank(per_appearance: int, seed: int) -> Floats:
    """Textures float32 [A,per_appearance,TILE*TILE], zero mean, about -0.5 to 0.5."""
    bank = np.empty((len(APPEARANCES), per_appearance, TILE * TILE), dtype=np.float32)
    for family, name in enumerate(APPEARANCES):
        for number in range(per_appearance):
            tile = _blur(_TEXTURES[name](np.random.default_rng([seed, 1, family, number])), 1.2)
            tile = 0.33 * (tile - tile.mean()) / tile.std()
            bank[family, number] = np.clip(tile, -0.5, 0.5).ravel()
    return bank


def look_up(texture: Floats, y: Array, x: Array) -> Floats:
    """Nearest texels at coordinates in texels; the texture is finer than the pixels and blurred: that is smooth."""
    rows = np.floor(y).astype(np.int32) & (TILE - 1)
    columns = np.floor(x).astype(np.int32) & (TILE - 1)
    return texture[rows * TILE + columns]
