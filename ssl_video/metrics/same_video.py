"""Which rows of features are clips of one video, found by the clips themselves."""

import torch
from torch import Tensor

# Pixels of a clip that tell it from others.
PROBED = 64


def group_by_video(seen: Tensor, features: Tensor, clips: Tensor) -> Tensor:
    """Order features by video and clip, whatever order a method encoded the clips in.

    A method may take one view after the other, all videos of a view together, or some of a video's clips only. Clips
    are known again by 64 of their pixels; where two are equal to the last bit, such as black ones, the first counts.

    Args:
        seen: ``[N, C, T, H, W]``, the clips that the features are of.
        features: ``[N, D]``.
        clips: ``[B, V, C, T, H, W]`` of a batch.

    Returns:
        ``[b, V, D]`` of the videos all of whose clips were seen; b is 0 where clips were changed on the way.
    """
    num_videos, num_views = clips.shape[:2]
    none = features.new_empty(0, num_views, features.shape[1])
    if seen.shape[1:] != clips.shape[2:]:
        return none
    wanted, there = _probe(clips.flatten(0, 1)), _probe(seen)
    equal = (wanted[:, None] == there[None]).all(dim=2)  # [B·V, N]
    rows = equal.int().argmax(dim=1).unflatten(0, (num_videos, num_views))
    complete = equal.any(dim=1).unflatten(0, (num_videos, num_views)).all(dim=1)
    return features[rows[complete]] if bool(complete.any()) else none


def _probe(clips: Tensor) -> Tensor:
    """``[N, 64]`` pixels, spread over the clip."""
    flat = clips.reshape(len(clips), -1)
    places = torch.linspace(0, flat.shape[1] - 1, min(PROBED, flat.shape[1]), device=flat.device).long()
    return flat[:, places]
