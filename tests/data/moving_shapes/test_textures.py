"""Textures: no seam, no direction, no mean, and as many as asked for."""

import numpy as np
import pytest

from ssl_video.data.moving_shapes.textures import APPEARANCES, TILE, look_up, texture_bank


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return texture_bank(2, 0).reshape(len(APPEARANCES), 2, TILE, TILE)


def test_textures_are_as_bright_as_they_are_dark_and_differ(tiles: np.ndarray) -> None:
    assert np.abs(tiles.mean(axis=(2, 3))).max() < 0.05
    assert np.abs(tiles).max() <= 0.5
    flat = tiles.reshape(10, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(10)).max() < 0.2
    assert not np.array_equal(tiles, texture_bank(2, 1).reshape(tiles.shape))


def test_textures_repeat_without_a_seam(tiles: np.ndarray) -> None:
    inside = np.abs(np.diff(tiles, axis=3)).mean(axis=(2, 3))
    at_seam = np.abs(tiles[..., 0] - tiles[..., -1]).mean(axis=2)
    assert (at_seam < 1.5 * inside).all()
    texture = tiles[0, 0].ravel()
    y, x = np.array([0.5, 3.2, 250.9]), np.array([7.1, 255.4, 0.0])
    assert np.array_equal(look_up(texture, y, x), look_up(texture, y - TILE, x + 2 * TILE))
    assert np.array_equal(look_up(texture, y, x), tiles[0, 0, [0, 3, 250], [7, 255, 0]])
