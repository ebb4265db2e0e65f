"""Clips at random times of a video, for contrastive methods."""

import numpy as np

from ssl_video.data.manifest import Segment
from ssl_video.data.samplers.base import ClipRequest, check_clip_shape, clip_positions, clip_span
from ssl_video.data.samplers.end_policies import EndPolicy, apply_end_policy, check_end_policy
from ssl_video.data.samplers.keyframes import Snap, check_snap, snap_flags, snapped

# As in the released code of the rho-study (Feichtenhofer et al., CVPR 2021, arXiv 2104.14558).
NUM_TRIES = 100


class RandomClips:
    """V clips whose starts are independent and uniform over all possible starts, the last one included.

    The "global sampling" of the rho-study (Feichtenhofer et al., CVPR 2021, arXiv 2104.14558). Differences to the
    released code: starts are whole frames (there real-valued, so that the last start is never drawn), and the frames of
    a clip lie `frame_stride` apart (there a linspace over the clip, both ends included).

    The clips come in the order of their draw, which is random in time: the views of a contrastive method have
    different roles. Limits on the gaps are tested on the sorted clips; a draw that breaks them is repeated up to 100
    times, then the draw closest to meeting them is taken and the request says so (`within_gaps`).

    Args:
        num_views: clips per video, V.
        num_frames: frames per clip, T.
        frame_stride: distance in frames between neighbouring frames of a clip.
        min_gap_frames: fewest frames between the end of a clip and the start of the next in time; 0 lets clips touch,
            negative values let them overlap, None sets no limit.
        max_gap_frames: most frames between them, likewise.
        end_policy: what to do with a video that is shorter than one clip.
        snap: `keyframe` moves each start back to the keyframe before it; see `ssl_video.data.samplers.keyframes`.
    """

    def __init__(
        self,
        *,
        num_views: int = 2,
        num_frames: int = 8,
        frame_stride: int = 2,
        min_gap_frames: int | None = None,
        max_gap_frames: int | None = None,
        end_policy: EndPolicy = "repeat_last",
        snap: Snap = None,
    ) -> None:
        check_clip_shape(num_views=num_views, num_frames=num_frames, frame_stride=frame_stride)
        check_end_policy(end_policy)
        check_snap(snap)
        if min_gap_frames is not None and max_gap_frames is not None and min_gap_frames > max_gap_frames:
            raise ValueError(
                f"min_gap_frames={min_gap_frames} must not exceed max_gap_frames={max_gap_frames}; "
                "no pair of clips can meet both."
            )
        self.num_views = num_views
        self.num_frames = num_frames
        self.frame_stride = frame_stride
        self.min_gap_frames = min_gap_frames
        self.max_gap_frames = max_gap_frames
        self.end_policy: EndPolicy = end_policy
        self.snap: Snap = snap
        self.min_frames = clip_span(num_frames, frame_stride)

    def __call__(self, segment: Segment, rng: np.random.Generator) -> ClipRequest:
        """Draw `num_views` clips of `segment`."""
        last_start = max(segment.num_frames - self.min_frames, 0)
        limited = self.min_gap_frames is not None or self.max_gap_frames is not None
        # All tries in one call: a loop over single draws costs more than the reading of their outcome.
        tries = rng.integers(0, last_start, size=(NUM_TRIES if limited else 1, self.num_views), endpoint=True)
        tries = snapped(tries, segment=segment, snap=self.snap)
        excess = self._excess(tries)
        best = int(np.argmin(excess))  # the first try without excess, else the closest
        positions = clip_positions(tries[best], num_frames=self.num_frames, frame_stride=self.frame_stride)
        indices = apply_end_policy(positions, segment=segment, policy=self.end_policy)
        return ClipRequest(indices, within_gaps=bool(excess[best] == 0), flags=snap_flags(segment, self.snap))

    def _excess(self, starts: np.ndarray) -> np.ndarray:
        """Return `[tries]`: by how many frames in all the gaps of each try `[tries, V]` leave their limits."""
        gaps = np.diff(np.sort(starts, axis=1), axis=1) - self.min_frames
        excess = np.zeros(len(starts), dtype=np.int64)
        if self.min_gap_frames is not None:
            excess += np.maximum(self.min_gap_frames - gaps, 0).sum(axis=1)
        if self.max_gap_frames is not None:
            excess += np.maximum(gaps - self.max_gap_frames, 0).sum(axis=1)
        return excess
