"""Several short clips of a video, for finding the one whose frames are out of order."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.manifest import Segment
from ssl_video.data.samplers.base import ClipRequest, check_clip_shape, clip_positions, clip_span
from ssl_video.data.samplers.end_policies import EndPolicy
from ssl_video.data.samplers.motion_weights import check_long_enough

Scheme = Literal["consecutive", "random", "constrained", "disjoint"]
COINCIDING = "coinciding_branches"


class SubVideos:
    """V clips (branches) of T frames in time order, of which the method then puts one out of order.

    The sampling of O3N (Fernando et al., CVPR 2017; no code was released). All branches are drawn alike and
    independently, before any is permuted, so that their frame numbers don't tell which one will be.

    - `consecutive`: T frames `frame_stride` apart from a uniform start.
    - `random`: T distinct frames of the whole video, sorted.
    - `constrained`: as `consecutive`, all inside one window of `window_factor * T * frame_stride` frames at a uniform
      place. At stride 1 and 6 frames the window has 4 starts: of 5 right branches two or more coincide, and "the one
      without a twin" becomes an answer. Use a stride above 1, or a transform that cuts each branch on its own.
    - `disjoint` (ours): as `consecutive`, no frame in two branches. Shared frames give an order away without any idea
      of time; beside this one it can be measured how much.

    A request in which two branches have the same frames says so (`coinciding_branches`).

    Args:
        num_views: branches, V; the paper's N + 1.
        num_frames: frames of a branch, T; the paper's W.
        frame_stride: distance in frames between neighbouring frames of a branch; `random` doesn't use it.
        scheme: see above.
        window_factor: of `constrained`.
    """

    end_policy: EndPolicy = "error"

    def __init__(
        self,
        *,
        num_views: int = 6,
        num_frames: int = 6,
        frame_stride: int = 1,
        scheme: Scheme = "consecutive",
        window_factor: float = 1.5,
    ) -> None:
        check_clip_shape(num_views=num_views, num_frames=num_frames, frame_stride=frame_stride)
        if scheme not in get_args(Scheme):
            raise ValueError(f"scheme={scheme!r} must be one of {', '.join(get_args(Scheme))}.")
        if window_factor < 1:
            raise ValueError(f"window_factor={window_factor} must be at least 1; a branch has to fit into the window.")
        self.num_views = num_views
        self.num_frames = num_frames
        self.frame_stride = frame_stride
        self.scheme: Scheme = scheme
        self.span = clip_span(num_frames, frame_stride)
        self.window_frames = max(self.span, int(window_factor * num_frames * frame_stride))
        self.min_frames = {
            "consecutive": self.span,
            "random": num_frames,
            "constrained": self.window_frames,
            "disjoint": num_views * self.span,
        }[scheme]

    def __call__(self, segment: Segment, rng: np.random.Generator) -> ClipRequest:
        """Draw the branches of `segment`."""
        way_out = "lower sampler.num_frames or sampler.frame_stride"
        check_long_enough(segment, min_frames=self.min_frames, way_out=way_out)
        indices = self._draw(segment.num_frames, rng)
        return ClipRequest(indices, flags=(COINCIDING,) if collision_rate(indices) > 0 else ())

    def _draw(self, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        if self.scheme == "random":
            drawn = [np.sort(rng.choice(length, self.num_frames, replace=False)) for _ in range(self.num_views)]
            return np.stack(drawn).astype(np.int64)
        if self.scheme == "disjoint":
            starts = self._disjoint_starts(length, rng)
        else:
            window = self.window_frames if self.scheme == "constrained" else length
            first = rng.integers(0, length - window, endpoint=True)
            starts = first + rng.integers(0, window - self.span, size=self.num_views, endpoint=True)
        return clip_positions(starts, num_frames=self.num_frames, frame_stride=self.frame_stride)

    def _disjoint_starts(self, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Starts at least a span apart, uniform over all such, in random order: a branch's place must not tell time."""
        free = length - self.num_views * self.span
        places = np.sort(rng.choice(free + self.num_views, self.num_views, replace=False))
        starts = places + np.arange(self.num_views) * (self.span - 1)
        return rng.permutation(starts).astype(np.int64)


def collision_rate(indices: NDArray[np.int64]) -> float:
    """Return the share of all pairs of branches `[V, T]` that have the same frames; 0 for one branch."""
    equal = (indices[:, None] == indices[None]).all(axis=2)
    first, second = np.triu_indices(len(indices), k=1)
    return float(equal[first, second].mean()) if len(first) else 0.0
