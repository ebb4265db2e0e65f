"""Drawing among candidates by how much moves in them; shared by the samplers of order methods on frames."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.manifest import Segment
from ssl_video.utils.errors import InputError

Weighting = Literal["prob", "topk", "none"]
MissingMotion = Literal["uniform", "error"]
NO_TABLE = "no_motion_table"
NO_MOTION = "no_motion"


def check_motion_choices(*, weighting: str, top_share: float, missing_motion: str) -> None:
    """Raise ValueError unless the arguments that samplers by motion share are what they may be."""
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting={weighting!r} must be one of {', '.join(get_args(Weighting))}.")
    if missing_motion not in get_args(MissingMotion):
        raise ValueError(f"missing_motion={missing_motion!r} must be one of {', '.join(get_args(MissingMotion))}.")
    if not 0 < top_share <= 1:
        raise ValueError(f"top_share={top_share} must be above 0 and at most 1; it is a share of the candidates.")


def draw_by_motion(
    motion: NDArray[np.floating], rng: np.random.Generator, *, weighting: Weighting, top_share: float
) -> int:
    """Draw one of `[M]` candidates.

    Args:
        motion: `[M]`, how much moves in each, 0 or more.
        rng: source of the draw.
        weighting: `prob` draws each in proportion to its motion, `topk` uniformly among those with the most, `none`
            uniformly among all. Where nothing moves all are equal.
        top_share: share of the candidates that `topk` draws from, at least one.
    """
    total = float(motion.sum())
    if weighting == "none" or not total > 0:
        return int(rng.integers(len(motion)))
    if weighting == "topk":
        number = max(1, round(top_share * len(motion)))
        return int(rng.choice(np.argsort(-motion, kind="stable")[:number]))
    return int(rng.choice(len(motion), p=motion.astype(np.float64) / motion.astype(np.float64).sum()))


def window_means(magnitude: NDArray[np.floating], length: int) -> NDArray[np.float64]:
    """Return the means `[L - length + 1]` over all windows of `length` entries."""
    sums = np.concatenate([[0.0], np.cumsum(magnitude, dtype=np.float64)])
    means: NDArray[np.float64] = np.maximum(sums[length:] - sums[:-length], 0.0) / length
    return means


def check_long_enough(segment: Segment, *, min_frames: int, way_out: str) -> None:
    """Refuse a segment too short for a sampler that neither holds nor repeats frames.

    Raises:
        InputError: names the video, what it has and what is needed.
    """
    if segment.num_frames < min_frames:
        raise InputError(
            f"video {segment.video_id} has {segment.num_frames} frames, but the sampler needs {min_frames}; leave out "
            f"such videos, or {way_out}."
        )
