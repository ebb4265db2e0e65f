"""Motion tables made by hand, for samplers."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.manifest import Segment
from ssl_video.data.motion import Motion
from support.segments import segment


def moving_segment(
    magnitude: NDArray[np.floating] | list[float],
    *,
    grid: NDArray[np.floating] | None = None,
    thumbnails: NDArray[np.uint8] | None = None,
) -> Segment:
    """Return a segment with a motion table; by default nothing tells places apart, and all thumbnails differ."""
    values = np.asarray(magnitude, dtype=np.float32)
    if grid is None:
        grid = np.repeat(values, 6 * 8).reshape(-1, 6, 8)
    if thumbnails is None:
        thumbnails = np.random.default_rng(0).integers(0, 256, (len(values), 64, 64), dtype=np.uint8)
    return replace(segment(len(values)), motion=Motion(values, grid.astype(np.float16), thumbnails))
