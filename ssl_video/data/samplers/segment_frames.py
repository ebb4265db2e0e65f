"""Frames that lie spread over the whole video, one from each of its segments."""

import numpy as np

from ssl_video.data.manifest import Segment
from ssl_video.data.samplers.base import ClipRequest, check_clip_shape
from ssl_video.utils.errors import InputError


class SegmentFrames:
    """The video is cut into T equal parts, and one frame is drawn from each: the sampling of TSN, TSM and TCL.

    As in the released code of TCL (Singh et al., CVPR 2021): a part has ``floor(L / T)`` frames, so the last
    ``L mod T`` frames are never drawn; of a video with fewer frames than parts, its first frame is taken T times. With
    ``dense`` the frames lie ``floor(dense_span / T)`` apart instead, from a start drawn so that ``dense_span`` frames
    fit in, and run on at the first frame where they don't.

    A clip covers the whole video, however long: two samplers with different ``num_frames`` give two speeds.

    Args:
        num_views: clips per video, V, each with draws of its own.
        num_frames: parts, T.
        frame_stride: nominal, for the distance differs from video to video: that at which the backbone is asked
            afterwards.
        centre: take the middle frame of each part, nothing is drawn (the validation of the released code).
        dense: see above.
        dense_span: frames that a dense clip covers.
    """

    min_frames = 1
    end_policy = "repeat_first"

    def __init__(
        self,
        *,
        num_views: int = 1,
        num_frames: int = 8,
        frame_stride: int = 6,
        centre: bool = False,
        dense: bool = False,
        dense_span: int = 64,
    ) -> None:
        check_clip_shape(num_views=num_views, num_frames=num_frames, frame_stride=frame_stride)
        if dense_span < num_frames:
            raise ValueError(f"dense_span={dense_span} must be at least num_frames={num_frames}; a clip fits into it.")
        if centre and dense:
            raise ValueError("centre=True and dense=True exclude each other; a dense clip has no parts.")
        self.num_views = num_views
        self.num_frames = num_frames
        self.frame_stride = frame_stride
        self.centre = centre
        self.dense = dense
        self.dense_span = dense_span

    def __call__(self, segment: Segment, rng: np.random.Generator) -> ClipRequest:
        """Return one frame of each part, in time order."""
        if segment.num_frames < 1:
            raise InputError(
                f"video {segment.video_id} has num_frames={segment.num_frames}, at least 1 is needed; "
                "index the data again or leave the video out."
            )
        draw = self._dense if self.dense else self._spread
        return ClipRequest(np.stack([draw(segment.num_frames, rng) for _ in range(self.num_views)]))

    def _spread(self, available: int, rng: np.random.Generator) -> np.ndarray:
        places = np.arange(self.num_frames, dtype=np.int64)
        length = available // self.num_frames
        if length == 0:
            return np.zeros_like(places)
        if self.centre:
            return ((places + 0.5) * available / self.num_frames).astype(np.int64)
        return places * length + rng.integers(length, size=self.num_frames)

    def _dense(self, available: int, rng: np.random.Generator) -> np.ndarray:
        start = rng.integers(max(1, available - self.dense_span))
        positions = start + np.arange(self.num_frames, dtype=np.int64) * (self.dense_span // self.num_frames)
        wrapped: np.ndarray = positions % available
        return wrapped
