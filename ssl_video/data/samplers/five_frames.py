"""Five frames in time order out of a stretch with much motion, for tuple verification."""

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.manifest import Segment
from ssl_video.data.samplers.base import ClipRequest, check_clip_shape
from ssl_video.data.samplers.end_policies import EndPolicy
from ssl_video.data.samplers.motion_weights import (
    NO_MOTION,
    NO_TABLE,
    MissingMotion,
    Weighting,
    check_long_enough,
    check_motion_choices,
    draw_by_motion,
    window_means,
)

NUM_TRIES = 50
TOO_SIMILAR = "frames_too_similar"


class FiveFrames:
    """One clip of five frames a < b < c < d < e, of which shuffle-and-learn makes right and wrong tuples.

    Misra et al., ECCV 2016: (b, c, d) is right, (b, a, d) and (b, e, d) are wrong. `tau_max` bounds d - b, so that what
    happens between the frames of a right tuple can be followed; `tau_min` bounds b - a and e - d from below, so that a
    and e are clearly from outside. A tuple whose middle c looks too much like a or e is drawn again.

    A window of the video is drawn by its mean motion, then a tuple within it, uniformly over all that keep both bounds.
    They are never broken, nor indices clamped: a doubled frame would stand in wrong tuples only. Where no draw is
    dissimilar enough, the one that comes closest is taken and the request says so (`frames_too_similar`).

    Differences to the paper, which doesn't give these: length of the window, how motion weights it, the threshold of
    similarity, and that frames are compared in grey at 64 pixels (there in colour).

    Without a motion table windows are uniform and nothing is compared (`no_motion_table`).

    Args:
        tau_max: most frames from b to d.
        tau_min: fewest frames from a to b and from d to e.
        window_frames: frames of the window; null is `tau_max + 2 * tau_min + 1`, cut to the video.
        weighting: of windows by their motion, `prob`, `topk` or `none`.
        top_share: share of the windows that `topk` draws from.
        ssd_min: least mean squared difference of the thumbnails, in grey levels squared, of c to a and to e; null takes
            the percentile.
        ssd_percentile: instead of `ssd_min`, this percentile of the differences between neighbours (a to b, b to c, …)
            of tuples drawn in the same window; 0 rejects none.
        frame_stride: distance in frames at which the backbone is asked afterwards; the sampler doesn't use it.
        missing_motion: `uniform` falls back where a video has no motion table, `error` refuses to start.
    """

    uses_motion = True
    num_views = 1
    num_frames = 5
    end_policy: EndPolicy = "error"

    def __init__(
        self,
        *,
        tau_max: int = 16,
        tau_min: int = 4,
        window_frames: int | None = None,
        weighting: Weighting = "prob",
        top_share: float = 0.25,
        ssd_min: float | None = None,
        ssd_percentile: float = 5.0,
        frame_stride: int = 8,
        missing_motion: MissingMotion = "uniform",
    ) -> None:
        check_clip_shape(num_views=1, num_frames=5, frame_stride=frame_stride)
        check_motion_choices(weighting=weighting, top_share=top_share, missing_motion=missing_motion)
        if tau_max < 2 or tau_min < 1:
            raise ValueError(
                f"tau_max={tau_max} must be at least 2, so that a frame fits between b and d, and tau_min={tau_min} at "
                "least 1."
            )
        self.min_frames = 2 * tau_min + 3
        if window_frames is not None and window_frames < self.min_frames:
            raise ValueError(f"window_frames={window_frames} must be at least 2 * tau_min + 3 = {self.min_frames}.")
        if (ssd_min is not None and ssd_min < 0) or not 0 <= ssd_percentile <= 100:
            raise ValueError(f"ssd_min={ssd_min} must be at least 0, and ssd_percentile={ssd_percentile} in 0..100.")
        self.tau_max = tau_max
        self.tau_min = tau_min
        self.window_frames = window_frames or tau_max + 2 * tau_min + 1
        self.weighting: Weighting = weighting
        self.top_share = top_share
        self.ssd_min = ssd_min
        self.ssd_percentile = ssd_percentile
        self.frame_stride = frame_stride
        self.missing_motion: MissingMotion = missing_motion

    def __call__(self, segment: Segment, rng: np.random.Generator) -> ClipRequest:
        """Draw the five frames of `segment`."""
        check_long_enough(segment, min_frames=self.min_frames, way_out="lower sampler.tau_min")
        length = min(self.window_frames, segment.num_frames)
        motion = segment.motion
        if motion is None:
            first = int(rng.integers(segment.num_frames - length, endpoint=True))
            return ClipRequest(first + self._draw_tuples(length, 1, rng), flags=(NO_TABLE,))
        # A frame's magnitude is that of the step to the next: a window of `length` frames has one step less.
        moving = window_means(motion.magnitude[:-1], length - 1)
        start = draw_by_motion(moving, rng, weighting=self.weighting, top_share=self.top_share)
        tuples = self._draw_tuples(length, NUM_TRIES, rng)
        chosen, is_dissimilar = self._first_dissimilar(tuples, motion.thumbnails[start : start + length])
        flags = ((NO_MOTION,) if not moving.any() else ()) + (() if is_dissimilar else (TOO_SIMILAR,))
        return ClipRequest(start + tuples[chosen : chosen + 1], flags=flags)

    def _draw_tuples(self, length: int, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw `[number, 5]` positions in a window, uniformly over all that keep both bounds.

        With every gap at its least, `free` frames are left to be given to: the time before a, b - a, e - d and the time
        after e, and, up to `tau_max`, to d - b. Giving s of them to d - b leaves s + 1 places for c, and
        C(free - s + 3, 3) ways to part the rest in four.
        """
        free = length - self.min_frames
        spare = np.arange(min(self.tau_max - 2, free) + 1)
        rest = free - spare
        ways = (spare + 1) * ((rest + 3) * (rest + 2) * (rest + 1) // 6)
        between = rng.choice(spare, size=number, p=ways / ways.sum())
        before_c = rng.integers(0, between, endpoint=True)
        # Four parts of the rest by three bars among its places and three more.
        bars = _draw_three(free - between + 3, rng)
        before_a = bars[:, 0]
        to_b = bars[:, 1] - bars[:, 0] - 1
        to_e = bars[:, 2] - bars[:, 1] - 1
        steps = [before_a, to_b + self.tau_min, before_c + 1, between - before_c + 1, to_e + self.tau_min]
        return np.cumsum(np.stack(steps, axis=1), axis=1).astype(np.int64)

    def _first_dissimilar(self, tuples: NDArray[np.int64], thumbnails: NDArray[np.uint8]) -> tuple[int, bool]:
        """Return the first tuple whose c differs enough from a and e, and True; else the one that differs most."""
        difference = mean_squared_differences(thumbnails)
        a, b, c, d, e = tuples.T
        if self.ssd_min is None:
            neighbours = np.concatenate([difference[a, b], difference[b, c], difference[c, d], difference[d, e]])
            least = float(np.percentile(neighbours, self.ssd_percentile)) if self.ssd_percentile > 0 else 0.0
        else:
            least = self.ssd_min
        nearest = np.minimum(difference[c, a], difference[c, e])
        if (nearest >= least).any():
            return int(np.argmax(nearest >= least)), True
        return int(np.argmax(nearest)), False


def _draw_three(choices: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw three distinct numbers below each of `choices` `[M]`, sorted `[M, 3]`, all such sets equally likely."""
    drawn = rng.integers(0, choices[:, None] - np.arange(3))
    # The second is counted without the first, the third without both.
    drawn[:, 1] += drawn[:, 1] >= drawn[:, 0]
    drawn[:, :2].sort(axis=1)
    drawn[:, 2] += drawn[:, 2] >= drawn[:, 0]
    drawn[:, 2] += drawn[:, 2] >= drawn[:, 1]
    drawn.sort(axis=1)
    return drawn


def mean_squared_differences(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return `[M, M]`, the mean squared difference of all pairs of images `[M, h, w]`."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=0)  # small numbers lose less in the subtraction below
    squares = np.einsum("ij,ij->i", flat, flat)
    differences = squares[:, None] + squares[None, :] - 2 * flat @ flat.T
    means: NDArray[np.float32] = np.maximum(differences, 0) / np.float32(flat.shape[1])
    return means
