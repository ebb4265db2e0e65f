"""Two clips of a video whose distance in time is drawn first, from a distribution of its own."""

import bisect
import math
from typing import Literal, get_args

import numpy as np

from ssl_video.data.manifest import Segment
from ssl_video.data.samplers.base import ClipRequest, check_clip_shape, clip_positions, clip_span
from ssl_video.data.samplers.end_policies import EndPolicy, apply_end_policy, check_end_policy
from ssl_video.data.samplers.keyframes import Snap, check_snap, snap_flags, snapped

Interval = Literal["linear", "power", "uniform", "increasing"]


class IntervalClips:
    """Two clips, the interval between their first frames drawn from a distribution that favours short intervals.

    The sampling of CVRL (Qian et al., CVPR 2021, arXiv 2008.03800). A segment of L frames has M = L - (T - 1) stride
    starts. With x = interval / M in [0, 1), the interval is the floored quantile of one of these densities:

    - `linear` (the paper's best, fixed in its released code): 2 (1 - x);
    - `power`: (a + 1) / a (1 - x^a) with a = `exponent`; 1 is `linear`, more comes closer to `uniform`;
    - `uniform`: 1;
    - `increasing`: 2 x, the mirror of `linear`.

    The earlier start is uniform over the starts that the interval leaves; clips may overlap. The pair comes in random
    order, by a draw of its own, since the views of CVRL have different roles.

    A segment of at most (T - 1) stride frames follows `end_policy`: with `loop` both starts are independent and
    uniform over all frames, and the clips go on at the first frame, as in the released code; otherwise both clips
    begin with the segment.

    Args:
        num_frames: frames per clip, T.
        frame_stride: distance in frames between neighbouring frames of a clip.
        interval: distribution of the interval.
        exponent: a of `power`, above 0; the others do not use it.
        end_policy: what to do with a video that is shorter than one clip.
        snap: `keyframe` moves each start back to the keyframe before it; see `ssl_video.data.samplers.keyframes`.
    """

    num_views = 2

    def __init__(
        self,
        *,
        num_frames: int = 16,
        frame_stride: int = 2,
        interval: Interval = "linear",
        exponent: float = 1.0,
        end_policy: EndPolicy = "loop",
        snap: Snap = None,
    ) -> None:
        check_clip_shape(num_views=self.num_views, num_frames=num_frames, frame_stride=frame_stride)
        check_end_policy(end_policy)
        check_snap(snap)
        if interval not in get_args(Interval):
            raise ValueError(f"interval={interval!r} must be one of {', '.join(get_args(Interval))}.")
        if not exponent > 0:
            raise ValueError(f"exponent={exponent} must be above 0; at 0 there is no density.")
        self.num_frames = num_frames
        self.frame_stride = frame_stride
        self.interval: Interval = interval
        self.exponent = exponent
        self.end_policy: EndPolicy = end_policy
        self.snap: Snap = snap
        self.min_frames = clip_span(num_frames, frame_stride)

    def __call__(self, segment: Segment, rng: np.random.Generator) -> ClipRequest:
        """Draw the two clips of `segment`."""
        starts = rng.permutation(self._draw_starts(segment.num_frames, rng))
        starts = snapped(starts, segment=segment, snap=self.snap)
        positions = clip_positions(starts, num_frames=self.num_frames, frame_stride=self.frame_stride)
        indices = apply_end_policy(positions, segment=segment, policy=self.end_policy)
        return ClipRequest(indices, flags=snap_flags(segment, self.snap))

    def _draw_starts(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """Return the two starts, the earlier first where the segment is long enough."""
        if num_frames < self.min_frames:
            num_starts = num_frames if self.end_policy == "loop" else 1
            return rng.integers(0, max(num_starts, 1), size=2)
        num_starts = num_frames - self.min_frames + 1
        interval = interval_at(rng.random(), num_starts=num_starts, interval=self.interval, exponent=self.exponent)
        start = rng.integers(0, num_starts - interval)
        return np.array([start, start + interval])


def interval_at(u: float, *, num_starts: int, interval: Interval = "linear", exponent: float = 1.0) -> int:
    """Return the interval in frames, `0 .. num_starts - 1`, at which its distribution function reaches `u`.

    Args:
        u: in [0, 1); a uniform draw gives a draw of the interval.
        num_starts: M, possible first frames of a clip.
        interval: distribution, see `IntervalClips`.
        exponent: a of `power`.
    """
    match interval:
        case "linear":
            share = 1 - math.sqrt(1 - u)
        case "uniform":
            share = u
        case "increasing":
            share = math.sqrt(u)
        case "power":
            return _power_interval_at(u, num_starts=num_starts, exponent=exponent)
    return min(int(num_starts * share), num_starts - 1)


def _power_interval_at(u: float, *, num_starts: int, exponent: float) -> int:
    """Bisect for the last interval whose distribution function is not above `u`; it has no inverse in closed form."""

    def distribution(interval: int) -> float:
        x = interval / num_starts
        return float(((exponent + 1) * x - x ** (exponent + 1)) / exponent)

    return bisect.bisect_right(range(1, num_starts), u, key=distribution)
