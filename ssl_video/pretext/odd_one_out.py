"""Questions of odd-one-out: of several clips of a video, which has its frames in the wrong order?

Fernando et al., "Self-Supervised Video Representation Learning With Odd-One-Out Networks", CVPR 2017.
"""

import math

import torch
from torch import Tensor

from ssl_video.pretext.permutations import permutations_of_ranks


def draw_odd_ones(
    batch_size: int,
    *,
    num_branches: int,
    num_frames: int,
    refuse_reversal: bool = False,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw which branch of each question is odd, and how its frames are ordered.

    All branches are equally likely to be odd, and all orders of its frames but the right one.

    Args:
        batch_size: number ``B`` of questions.
        num_branches: clips in a question, ``V``.
        num_frames: frames of a clip, ``W``, 2 to 20.
        refuse_reversal: also leave out the clip from back to front, which differs from the others only in the direction
            of its motion.
        device: where the result lies and is drawn; must be the generator's device, if one is given.
        generator: source of the draw; torch's global one if None.

    Returns:
        Orders of the frames, int64 ``[B, V, W]``, the identity in all branches but the odd one, and the odd branch,
        int64 ``[B]``.

    Raises:
        ValueError: so few frames that no wrong order is left.
    """
    wrong_orders = math.factorial(num_frames) - (2 if refuse_reversal else 1)
    if wrong_orders < 1:
        raise ValueError(
            f"num_frames={num_frames} leaves no wrong order for the odd clip; it must be at least "
            f"{3 if refuse_reversal else 2}."
        )
    # Ranks are lexicographic: the first is the right order, the last the reversal.
    ranks = 1 + torch.randint(wrong_orders, (batch_size,), device=device, generator=generator)
    odd = torch.randint(num_branches, (batch_size,), device=device, generator=generator)
    in_time = torch.arange(num_frames, device=device)
    is_odd = (torch.arange(num_branches, device=device) == odd.unsqueeze(1)).unsqueeze(2)
    return torch.where(is_odd, permutations_of_ranks(ranks, num_frames).unsqueeze(1), in_time), odd
