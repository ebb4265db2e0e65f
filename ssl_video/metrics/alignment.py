"""Alignment: how near to each other the clips of one video lie."""

from torch import Tensor
from torch.nn.functional import normalize


def clip_alignment(clips: Tensor) -> Tensor:
    """Return `[N]`: the mean squared distance of the unit-length features of two clips of a video, over its pairs.

    The alignment loss of Wang & Isola (ICML 2020, arXiv 2005.10242) with its alpha of 2, a positive pair being two
    clips of one video; its mean over the videos is the metric. From 0 (all clips of a video have one direction) to 4
    (two clips are opposite); features that have nothing to do with the video come to 2 less twice their mean cosine.

    Args:
        clips: `[N, V, D]`, V at least 2; the length of the features does not matter.

    Raises:
        ValueError: another shape, or fewer than two clips.
    """
    if clips.ndim != 3 or clips.shape[1] < 2:
        raise ValueError(
            f"clips {tuple(clips.shape)} must be [N, V, D] with at least 2 clips per video; a pair has two."
        )
    unit = normalize(clips.double(), dim=2)
    num_clips = unit.shape[1]
    # The sum over pairs of |u - v|^2 is V * sum |u|^2 - |sum u|^2: no V x V table is needed.
    over_pairs = num_clips * unit.square().sum(dim=(1, 2)) - unit.sum(dim=1).square().sum(dim=1)
    return over_pairs.clamp(min=0) / (num_clips * (num_clips - 1) / 2)
