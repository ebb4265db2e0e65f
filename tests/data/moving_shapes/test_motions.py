"""Motions: reversals of each other, and equal draws whatever the motion."""

import numpy as np
import pytest

from ssl_video.data.moving_shapes.motions import ALL_MOTIONS, displacements
from ssl_video.data.moving_shapes.scene import SceneSettings


@pytest.mark.parametrize(("forward", "backward"), [("growing", "shrinking"), ("accelerating", "decelerating")])
def test_paths_are_each_others_reversal(forward: str, backward: str) -> None:
    """The steps of one, last first and with the sign turned, are a path of the other: same law, another phase."""
    times = np.arange(200.0)
    paths = [displacements(m, times, SceneSettings(), np.random.default_rng(4)) for m in (forward, backward)]
    growth = [np.diff(path[:, 3]) for path in paths]
    speed = [np.hypot(*np.diff(path[:, :2], axis=0).T) for path in paths]
    assert np.allclose(growth[0], -growth[1], atol=1e-9)
    gains = [np.diff(s) for s in speed]
    assert abs(speed[0].mean() - speed[1].mean()) <= 0.1 * speed[0].mean()
    if forward == "accelerating":
        assert np.median(gains[0]) > 0 > np.median(gains[1])
        # Rare breaks, many small gains: the skew turns with time.
        assert np.mean(gains[0] > 0) > 0.85 and np.mean(gains[1] < 0) > 0.85


def test_every_motion_draws_equally_many_numbers() -> None:
    """Else the scene's other draws, and so single frames, would depend on the motion."""
    left = set()
    for motion in ALL_MOTIONS:
        rng = np.random.default_rng(0)
        displacements(motion, np.arange(5.0), SceneSettings(), rng)
        left.add(float(rng.random()))
    assert len(left) == 1
