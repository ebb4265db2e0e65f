"""Clips that follow each other at equal gaps, for methods that predict their order."""

import numpy as np

from ssl_video.data.manifest import Segment
from ssl_video.data.samplers.base import ClipRequest, check_clip_shape, clip_positions, clip_span
from ssl_video.data.samplers.end_policies import EndPolicy, apply_end_policy, check_end_policy
from ssl_video.data.samplers.motion_weights import check_long_enough


class ConsecutiveClips:
    """V clips in time order, `gap_frames` frames between one and the next, the first start uniform.

    The sampling of clip order prediction (Xu et al., CVPR 2019; released code: 3 clips of 16 neighbouring frames, 8
    frames between clips, 64 frames in all, start uniform in `0 .. L - 64`, the last included). The clips come in time
    order; the method shuffles them.

    Too short videos are refused by default and meant to be left out (`min_frames`): held or repeated frames would
    give away, or make unanswerable, which clip comes first.

    Args:
        num_views: clips per video, V.
        num_frames: frames per clip, T.
        frame_stride: distance in frames between neighbouring frames of a clip.
        gap_frames: frames of the video between the last frame of a clip and the first of the next.
        end_policy: what to do with a video that is shorter than all clips and gaps together.
    """

    def __init__(
        self,
        *,
        num_views: int = 3,
        num_frames: int = 8,
        frame_stride: int = 1,
        gap_frames: int = 4,
        end_policy: EndPolicy = "error",
    ) -> None:
        check_clip_shape(num_views=num_views, num_frames=num_frames, frame_stride=frame_stride)
        check_end_policy(end_policy)
        if gap_frames < 0:
            raise ValueError(f"gap_frames={gap_frames} must be at least 0; clips whose order is asked do not overlap.")
        self.num_views = num_views
        self.num_frames = num_frames
        self.frame_stride = frame_stride
        self.gap_frames = gap_frames
        self.end_policy: EndPolicy = end_policy
        span = clip_span(num_frames, frame_stride)
        self.min_frames = num_views * span + (num_views - 1) * gap_frames
        self._offsets = np.arange(num_views, dtype=np.int64) * (span + gap_frames)

    def __call__(self, segment: Segment, rng: np.random.Generator) -> ClipRequest:
        """Draw the tuple of clips of `segment`."""
        if self.end_policy == "error":  # the other policies are no way out: they would give the order away
            way_out = "lower sampler.num_frames, sampler.frame_stride or sampler.gap_frames"
            check_long_enough(segment, min_frames=self.min_frames, way_out=way_out)
        start = rng.integers(0, max(segment.num_frames - self.min_frames, 0), endpoint=True)
        positions = clip_positions(start + self._offsets, num_frames=self.num_frames, frame_stride=self.frame_stride)
        return ClipRequest(apply_end_policy(positions, segment=segment, policy=self.end_policy))
