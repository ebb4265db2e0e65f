"""Orders of a tuple, as targets: shuffle the clips of a video and remember how.

``permutation[i]`` is the original position of the element presented at place ``i``: ``presented = clips[permutation]``.
The label is the permutation's lexicographic rank; for three elements 0:(0,1,2) 1:(0,2,1) 2:(1,0,2) 3:(1,2,0) 4:(2,0,1)
5:(2,1,0). (With the inverse convention labels 3 and 4 would change places.)
"""

import itertools

import torch
from torch import Tensor


def all_permutations(n: int) -> Tensor:
    """All orders of ``n`` elements, int64 ``[n!, n]``, row = label."""
    if not 1 <= n <= 8:
        raise ValueError(f"n={n} must be 1 to 8; more elements have too many orders to tell apart.")
    return torch.tensor(list(itertools.permutations(range(n))))


def draw_permutations(
    batch_size: int,
    n: int,
    *,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one order per video, all equally likely.

    Args:
        batch_size: number ``B`` of videos.
        n: elements to order.
        device: where the result lies and is drawn; must be the generator's device, if one is given.
        generator: source of the draw; torch's global one if None.

    Returns:
        Permutations, int64 ``[B, n]``, and their labels, int64 ``[B]``, in ``[0, n!)``.
    """
    permutations = all_permutations(n).to(device)
    labels = torch.randint(len(permutations), (batch_size,), device=device, generator=generator)
    return permutations[labels], labels


def present(clips: Tensor, permutations: Tensor) -> Tensor:
    """Put each video's elements into its presented order: ``clips[b, permutations[b]]`` for every ``b``.

    Args:
        clips: ``[B, n, ...]`` in their original order.
        permutations: int64 ``[B, n]``.

    Returns:
        ``[B, n, ...]``.
    """
    if clips.shape[:2] != permutations.shape:
        raise ValueError(
            f"clips start with {list(clips.shape[:2])}, permutations are {list(permutations.shape)}; "
            f"both must be [B, n]."
        )
    videos = torch.arange(len(clips), device=clips.device).unsqueeze(1)
    return clips[videos, permutations.to(clips.device)]
