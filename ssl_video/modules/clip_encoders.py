"""Encodings of a short clip as one image, in which a 2D network can see motion (O3N, Fernando et al., CVPR 2017).

All are linear in the frames, and their weights sum to 0: a clip that stands still is encoded as 0. The sums are divided
by a constant, never by a clip's own range, so that every encoding lies within plus and minus the range of the pixels.
No code of the paper was found; it names the encodings, the formulas are those of the literature after it.
"""

import torch
from torch import Tensor


def sum_of_differences(clips: Tensor) -> Tensor:
    """All differences x_j - x_i of a later and an earlier frame, summed: sum over t of (2t - W - 1) x_t, t = 1..W.

    Only consecutive ones would leave nothing but the last frame minus the first. Later papers call this the dynamic
    image.

    Args:
        clips: ``[N, C, W, H, W']`` with W of at least 2 frames.

    Returns:
        ``[N, C, H, W']``.
    """
    return _weighted_sum(clips, sum_of_differences_weights(_num_frames(clips)))


def dynamic_image(clips: Tensor) -> Tensor:
    """Approximate rank pooling: frame t = 1..W weighs 2(W - t + 1) - (W + 1)(h_W - h_{t-1}), h_t = 1/1 + ... + 1/t.

    Args:
        clips: ``[N, C, W, H, W']`` with W of at least 2 frames.

    Returns:
        ``[N, C, H, W']``.
    """
    return _weighted_sum(clips, dynamic_image_weights(_num_frames(clips)))


def stack_of_differences(clips: Tensor) -> Tensor:
    """The W - 1 differences x_t - x_{t+1} of consecutive frames, stacked as channels: all C of t = 1, all of t = 2, ...

    Sign and order are those of two reimplementations; one of the paper is not known.

    Args:
        clips: ``[N, C, W, H, W']`` with W of at least 2 frames.

    Returns:
        ``[N, (W-1)C, H, W']``.
    """
    _num_frames(clips)
    return (clips[:, :, :-1] - clips[:, :, 1:]).transpose(1, 2).flatten(1, 2)


def sum_of_differences_weights(num_frames: int) -> Tensor:
    """Weights ``[W]``, float64, of the frames in their sum of differences, before the division; 6: -5 -3 -1 1 3 5."""
    times = torch.arange(1, num_frames + 1, dtype=torch.float64)
    return 2 * times - num_frames - 1


def dynamic_image_weights(num_frames: int) -> Tensor:
    """Weights ``[W]``, float64, of the frames in their dynamic image, before the division."""
    times = torch.arange(1, num_frames + 1, dtype=torch.float64)
    remaining = (1 / times).flip(0).cumsum(0).flip(0)  # h_W - h_{t-1} = 1/t + ... + 1/W
    return 2 * (num_frames - times + 1) - (num_frames + 1) * remaining


def _weighted_sum(clips: Tensor, weights: Tensor) -> Tensor:
    """Weigh the frames and sum them; divided so that the positive weights, and so the negative ones, sum to 1."""
    weights = weights / weights.clamp(min=0).sum()
    return torch.einsum("nctyx,t->ncyx", clips, weights.to(clips))


def _num_frames(clips: Tensor) -> int:
    if clips.ndim != 5 or clips.shape[2] < 2:
        raise ValueError(
            f"clips of shape {list(clips.shape)} must be [N,C,T,H,W] with T of at least 2; one frame has no motion."
        )
    return clips.shape[2]
