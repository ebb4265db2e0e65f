"""What happens when a segment is shorter than the clips asked of it."""

from typing import Literal, get_args

import numpy as np

from ssl_video.data.manifest import Segment
from ssl_video.utils.errors import InputError

EndPolicy = Literal["repeat_last", "loop", "error"]


def check_end_policy(policy: str) -> None:
    """Raise ValueError unless `policy` is one of the named end policies."""
    if policy not in get_args(EndPolicy):
        raise ValueError(f"end_policy={policy!r} must be one of {', '.join(get_args(EndPolicy))}.")


def apply_end_policy(positions: np.ndarray, *, segment: Segment, policy: EndPolicy) -> np.ndarray:
    """Bring frame positions that lie beyond the segment's end back into it.

    Args:
        positions: `[V, T]` int64 frame positions, counted from the segment's first frame.
        segment: the segment the clips are taken from.
        policy: `repeat_last` holds the last frame, `loop` goes on at the first frame, `error` refuses.

    Returns:
        `[V, T]` int64, every value in `0 .. segment.num_frames - 1`; unchanged if all were inside.

    Raises:
        InputError: the segment has no frame, or is too short and the policy is `error`.
    """
    if segment.num_frames < 1:
        raise InputError(
            f"video {segment.video_id} has num_frames={segment.num_frames}, at least 1 is needed; "
            "index the data again or leave the video out."
        )
    needed = int(positions.max()) + 1
    if needed <= segment.num_frames:
        return positions
    if policy == "error":
        raise InputError(
            f"video {segment.video_id} has {segment.num_frames} frames, but the clips need {needed}; leave out such "
            "videos, ask for shorter clips (sampler.num_frames, sampler.frame_stride, sampler.gap_frames), "
            "or set sampler.end_policy=repeat_last."
        )
    inside: np.ndarray = (
        positions % segment.num_frames if policy == "loop" else np.minimum(positions, segment.num_frames - 1)
    )
    return inside
