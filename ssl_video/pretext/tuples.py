"""Tuples of three frames, as targets: is the middle one where it belongs in time?

Five frames of a video in time order, a b c d e, give (b, c, d), which is right, and (b, a, d) and (b, e, d), which are
not. Right and wrong begin and end with the same frames, so only the middle one tells them apart. Each may be presented
from back to front, with the same label (Misra et al., "Shuffle and Learn", ECCV 2016).
"""

import torch
from torch import Tensor

NUM_SOURCE_FRAMES = 5
_TUPLES = ((1, 2, 3), (1, 0, 3), (1, 4, 3))  # places in a b c d e; the first is in order


def draw_tuples(
    num_tuples: int,
    *,
    negative_share: float = 0.75,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw tuples, each by itself: their share of wrong ones varies, so that a batch doesn't tell a label.

    Args:
        num_tuples: number ``Q`` of tuples.
        negative_share: probability of a tuple in wrong order; its middle is a or e, equally likely.
        device: where the result lies and is drawn; must be the generator's device, if one is given.
        generator: source of the draw; torch's global one if None.

    Returns:
        Places of the presented frames among the five, int64 ``[Q, 3]``, and labels, int64 ``[Q]``, 1 = right order.
    """
    if not 0 <= negative_share <= 1:
        raise ValueError(f"negative_share={negative_share} must be 0 to 1; it is a probability.")
    negative, late, backwards = torch.rand(3, num_tuples, device=device, generator=generator)
    wrong = negative < negative_share
    kind = torch.where(wrong, 1 + (late < 0.5).long(), 0)
    tuples = torch.tensor(_TUPLES, device=device)[kind]
    return torch.where((backwards < 0.5).unsqueeze(1), tuples.flip(1), tuples), (~wrong).long()
