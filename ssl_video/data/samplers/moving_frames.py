"""A few frames in time order and the place where most moves, for sorting frames."""

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.manifest import Segment
from ssl_video.data.motion import Motion
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
)

PATCH_CUT = "patch_larger_than_frame"


class MovingFrames:
    """One clip of frames in time order, chosen by motion, and the patch of the picture in which most moves.

    The sampling of OPN (Lee et al., ICCV 2017): frames are chosen by the magnitude of optical flow, and one patch, the
    same in all frames, is found by sliding a window over the flow. The released code reads frames and patches from a
    list that was not released with its rules, so the gaps, the number of candidates and the weighting are ours.

    `num_candidates` tuples are drawn, uniformly over all that keep the limits on the gaps; one of them is drawn by the
    mean motion from its first frame to its last. The patch is where that motion is strongest.

    Without a motion table a tuple is uniform and the patch is the middle one (`no_motion_table`).

    Args:
        num_frames: frames of the tuple, T.
        min_gap: fewest frames from one frame of the tuple to the next.
        max_gap: most frames, likewise.
        patch: side of the square patch: a whole number is in pixels of the source, a fraction (up to 1.0) is of the
            shorter side. Where the frame is smaller, it is cut to the frame's shorter side
            (`patch_larger_than_frame`).
        num_candidates: tuples that are compared.
        weighting: of tuples by their motion, `prob`, `topk` or `none`.
        top_share: share of the candidates that `topk` draws from.
        frame_stride: distance in frames at which the backbone is asked afterwards; the sampler doesn't use it.
        missing_motion: `uniform` falls back where a video has no motion table, `error` refuses to start.
    """

    uses_motion = True
    num_views = 1
    end_policy: EndPolicy = "error"

    def __init__(
        self,
        *,
        num_frames: int = 4,
        min_gap: int = 3,
        max_gap: int = 8,
        patch: int | float = 0.6,
        num_candidates: int = 16,
        weighting: Weighting = "prob",
        top_share: float = 0.25,
        frame_stride: int = 8,
        missing_motion: MissingMotion = "uniform",
    ) -> None:
        check_clip_shape(num_views=1, num_frames=num_frames, frame_stride=frame_stride)
        check_motion_choices(weighting=weighting, top_share=top_share, missing_motion=missing_motion)
        if num_frames < 2 or not 1 <= min_gap <= max_gap:
            raise ValueError(
                f"num_frames={num_frames} must be at least 2, and min_gap={min_gap} at least 1 and at most "
                f"max_gap={max_gap}."
            )
        if patch <= 0 or (isinstance(patch, float) and patch > 1):
            raise ValueError(
                f"patch={patch} must be a number of pixels (whole) or a share of the shorter side (up to 1.0)."
            )
        if num_candidates < 1:
            raise ValueError(f"num_candidates={num_candidates} must be at least 1.")
        self.num_frames = num_frames
        self.min_gap = min_gap
        self.max_gap = max_gap
        self.patch = patch
        self.num_candidates = num_candidates
        self.weighting: Weighting = weighting
        self.top_share = top_share
        self.frame_stride = frame_stride
        self.missing_motion: MissingMotion = missing_motion
        self.min_frames = (num_frames - 1) * min_gap + 1

    def __call__(self, segment: Segment, rng: np.random.Generator) -> ClipRequest:
        """Draw the frames of `segment` and find their patch."""
        check_long_enough(segment, min_frames=self.min_frames, way_out="lower sampler.min_gap")
        motion = segment.motion
        side, flags = self._patch_side(segment)
        if motion is None:
            indices = self._draw_tuples(segment.num_frames, 1, rng)
            box = _middle_box(segment, side)
            return ClipRequest(indices, box=box, flags=(*flags, NO_TABLE))
        tuples = self._draw_tuples(segment.num_frames, self.num_candidates, rng)
        sums = np.concatenate([[0.0], np.cumsum(motion.magnitude, dtype=np.float64)])
        moving = (sums[tuples[:, -1]] - sums[tuples[:, 0]]) / (tuples[:, -1] - tuples[:, 0])
        chosen = tuples[draw_by_motion(moving, rng, weighting=self.weighting, top_share=self.top_share)]
        density = mean_grid(motion, chosen)
        if not density.any():
            return ClipRequest(chosen[None], box=_middle_box(segment, side), flags=(*flags, NO_MOTION))
        top, left = strongest_patch(density, height=segment.height, width=segment.width, side=side)
        return ClipRequest(chosen[None], box=np.array([[top, left, side, side]]), flags=flags)

    def _patch_side(self, segment: Segment) -> tuple[int, tuple[str, ...]]:
        shorter = min(segment.height, segment.width)
        side = round(self.patch * shorter) if isinstance(self.patch, float) else self.patch
        return max(1, min(side, shorter)), (PATCH_CUT,) if side > shorter else ()

    def _draw_tuples(self, num_frames: int, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw `[number, T]` tuples, uniformly over all that keep the limits on the gaps and end inside the segment."""
        steps = self.num_frames - 1
        free = num_frames - self.min_frames  # frames left when every gap is at its least
        widest = self.min_gap + min(self.max_gap - self.min_gap, free)
        found = np.empty((0, self.num_frames), dtype=np.int64)
        # A tuple that ends outside is drawn again: that keeps the draw uniform. At worst 1 in T! is inside.
        while len(found) < number:
            starts = rng.integers(0, free, size=(4 * number + 16, 1), endpoint=True)
            gaps = rng.integers(self.min_gap, widest, size=(len(starts), steps), endpoint=True)
            tuples = np.cumsum(np.concatenate([starts, gaps], axis=1), axis=1)
            found = np.concatenate([found, tuples[tuples[:, -1] < num_frames]])
        return found[:number]


def mean_grid(motion: Motion, indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean motion `[gh, gw]` from the first to the last of some frames."""
    mean: NDArray[np.float64] = motion.grid[indices[0] : indices[-1]].mean(axis=0, dtype=np.float64)
    return mean


def strongest_patch(density: NDArray[np.floating], *, height: int, width: int, side: int) -> tuple[int, int]:
    """Return top and left, in pixels, of the square with the most motion inside a frame.

    Args:
        density: `[gh, gw]`, motion by cells of the frame.
        height: of the frame, in pixels.
        width: of the frame, in pixels.
        side: of the square, in pixels; it moves by cells, and to the frame's far edges.
    """
    tops = _positions(height, side, cells=density.shape[0])
    lefts = _positions(width, side, cells=density.shape[1])
    # Motion is constant within a cell, so its sums are exact where they are interpolated between the cells' edges.
    by_rows = _between(density, tops, tops + side, length=height)
    sums = _between(by_rows.T, lefts, lefts + side, length=width).T
    row, column = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(tops[row]), int(lefts[column])


def _positions(length: int, side: int, *, cells: int) -> NDArray[np.int64]:
    edges = np.round(np.arange(cells) * length / cells).astype(np.int64)
    return np.unique(np.minimum(edges, length - side))


def _between(
    density: NDArray[np.floating], first: NDArray[np.int64], last: NDArray[np.int64], *, length: int
) -> NDArray[np.float64]:
    """Integrals over `[first, last)` pixels along the first axis, `[len(first), ...]`."""
    sums = np.concatenate([np.zeros((1, density.shape[1])), np.cumsum(density, axis=0, dtype=np.float64)])
    edges = np.arange(len(sums)) * length / density.shape[0]
    integrals = [np.interp(last, edges, column) - np.interp(first, edges, column) for column in sums.T]
    return np.stack(integrals, axis=1)


def _middle_box(segment: Segment, side: int) -> NDArray[np.int64]:
    return np.array([[(segment.height - side) // 2, (segment.width - side) // 2, side, side]], dtype=np.int64)
