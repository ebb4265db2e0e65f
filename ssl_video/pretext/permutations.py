"""Orders of a tuple, as targets: shuffle the clips of a video and remember how.

``permutation[i]`` is the original position of the element presented at place ``i``: ``presented = clips[permutation]``.
The label is the permutation's lexicographic rank; for three elements 0:(0,1,2) 1:(0,2,1) 2:(1,0,2) 3:(1,2,0) 4:(2,0,1)
5:(2,1,0). (With the inverse convention labels 3 and 4 would change places.)
"""

import itertools
import math
from typing import Literal

import torch
from torch import Tensor

Merge = Literal["position", "time", "none"]

# The twelve orders of four frames that the released code of OPN tells apart, row = label: its own table, no ranks.
_OPN_ORDERS = (
    (0, 1, 2, 3),
    (0, 2, 1, 3),
    (0, 2, 3, 1),
    (0, 1, 3, 2),
    (0, 3, 1, 2),
    (0, 3, 2, 1),
    (1, 0, 2, 3),
    (1, 0, 3, 2),
    (1, 2, 0, 3),
    (2, 0, 1, 3),
    (2, 0, 3, 1),
    (2, 1, 0, 3),
)


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


def permutations_of_ranks(ranks: Tensor, n: int) -> Tensor:
    """The permutations of given lexicographic ranks, without a table of all ``n!``.

    Args:
        ranks: int64 ``[B]`` in ``[0, n!)``; 0 is the identity, ``n! - 1`` the reversal.
        n: elements, at most 20 (``20!`` is the last that an int64 holds).

    Returns:
        int64 ``[B, n]``.
    """
    if not 1 <= n <= 20:
        raise ValueError(f"n={n} must be 1 to 20; the rank of a longer permutation does not fit an int64.")
    remaining = torch.arange(n, device=ranks.device).expand(len(ranks), n)
    chosen = []
    for left in range(n, 0, -1):
        orders_of_rest = math.factorial(left - 1)
        place = (ranks // orders_of_rest).unsqueeze(1)
        ranks = ranks % orders_of_rest
        chosen.append(remaining.gather(1, place))
        others = torch.arange(left - 1, device=ranks.device)
        remaining = remaining.gather(1, others + (others >= place).long())  # without the chosen one
    return torch.cat(chosen, dim=1)


def order_classes(merge: Merge = "position") -> Tensor:
    """The orders of four frames, grouped into the classes that frame sorting tells apart.

    - ``position`` (the released code of OPN): an order and its presentation from back to front, ``p`` and
      ``p[::-1]``, share a class; the label is the row of the code's own table. That is *not* the reversal of the video:
      a motion that looks the same backwards is told right 2 times in 3 at best.
    - ``time``: an order and the same order of the reversed video, ``p`` and ``3 - p``, share a class; the label is the
      lexicographic rank of the lesser, 0 to 11. A motion that looks the same backwards can be told.
    - ``none``: every order is a class, label = lexicographic rank.

    Returns:
        int64 ``[classes, members, 4]``: ``[12, 2, 4]`` or ``[24, 1, 4]``.

    Raises:
        ValueError: an unknown ``merge``.
    """
    if merge == "position":
        orders = torch.tensor(_OPN_ORDERS)
        return torch.stack([orders, orders.flip(1)], dim=1)
    if merge == "time":
        orders = all_permutations(4)[:12]  # those that begin with 0 or 1; reversal makes them 3 or 2
        return torch.stack([orders, 3 - orders], dim=1)
    if merge == "none":
        return all_permutations(4).unsqueeze(1)
    raise ValueError(f"merge={merge!r} is not known; use 'position', 'time' or 'none'.")


def draw_orders(batch_size: int, classes: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw one order per video: a class, all equally likely, then one of its members, all equally likely.

    Args:
        batch_size: number ``B`` of videos.
        classes: ``[classes, members, n]`` as ``order_classes`` gives them, on the device of the draw.
        generator: source of the draw, on the same device; torch's global one if None.

    Returns:
        Permutations, int64 ``[B, n]``, and their labels, int64 ``[B]``, in ``[0, classes)``.
    """
    labels = torch.randint(len(classes), (batch_size,), device=classes.device, generator=generator)
    members = torch.randint(classes.shape[1], (batch_size,), device=classes.device, generator=generator)
    return classes[labels, members], labels
