"""Shuffle-BN: let the keys' batch norm see other companions than the queries', so that it cannot betray the positive.

A query and its key share a rank and so the batch's statistics; a network can match the two by these alone. MoCo
therefore encodes the keys of all ranks in shuffled order (He et al., 2020, section 3.3).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ssl_video.utils.distributed import gather, rank, rows_per_rank


@torch.no_grad()
def shuffle(tensor: Tensor, *, seed: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Exchange rows between ranks by one random permutation of all of them.

    Args:
        tensor: this rank's rows ``[n, ...]``.
        seed: seeds the permutation; must be equal on all ranks, and another one at each step.

    Returns:
        This rank's share ``[n, ...]`` of the shuffled rows, and the function that takes what was made of the share,
        ``[n, ...]``, back to this rank's own rows in their old order. Neither carries a gradient.
    """
    rows = rows_per_rank(tensor)
    start = sum(rows[: rank()])
    own = slice(start, start + len(tensor))
    # Drawn on the CPU: equal on all ranks, whatever their devices.
    permutation = torch.randperm(sum(rows), generator=torch.Generator().manual_seed(seed))
    inverse = torch.argsort(permutation)

    @torch.no_grad()
    def unshuffle(outputs: Tensor) -> Tensor:
        return gather(outputs)[inverse[own].to(outputs.device)]

    return gather(tensor)[permutation[own].to(tensor.device)], unshuffle
