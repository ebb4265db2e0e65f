"""Clips spread evenly over a video, for evaluation."""

import numpy as np

from ssl_video.data.manifest import Segment
from ssl_video.data.samplers.base import ClipRequest, check_clip_shape, clip_positions, clip_span
from ssl_video.data.samplers.end_policies import EndPolicy, apply_end_policy, check_end_policy


class UniformClips:
    """V clips with evenly spaced centres: the first begins with the segment, the last ends with it.

    The test clips of clip order prediction (Xu et al., CVPR 2019; released code: centres `linspace(8, L - 8, 10)` for
    16 frames, rounded down). One clip alone lies in the middle. Nothing is random; `rng` is not used.

    Args:
        num_views: clips per video, V.
        num_frames: frames per clip, T.
        frame_stride: distance in frames between neighbouring frames of a clip.
        end_policy: what to do with a video that is shorter than one clip.
    """

    def __init__(
        self,
        *,
        num_views: int = 5,
        num_frames: int = 8,
        frame_stride: int = 2,
        end_policy: EndPolicy = "repeat_last",
    ) -> None:
        check_clip_shape(num_views=num_views, num_frames=num_frames, frame_stride=frame_stride)
        check_end_policy(end_policy)
        self.num_views = num_views
        self.num_frames = num_frames
        self.frame_stride = frame_stride
        self.end_policy: EndPolicy = end_policy
        self.min_frames = clip_span(num_frames, frame_stride)

    def __call__(self, segment: Segment, rng: np.random.Generator) -> ClipRequest:
        """Return the clips of `segment`."""
        last_start = max(segment.num_frames - self.min_frames, 0)
        if self.num_views == 1:
            starts = np.array([last_start // 2])
        else:
            # Whole numbers throughout: a floored float linspace misses frames by rounding.
            starts = np.arange(self.num_views) * last_start // (self.num_views - 1)
        positions = clip_positions(starts, num_frames=self.num_frames, frame_stride=self.frame_stride)
        return ClipRequest(apply_end_policy(positions, segment=segment, policy=self.end_policy))
