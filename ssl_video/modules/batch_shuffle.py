"""Shuffle-BN: let the keys' batch norm see other companions than the queries', so that it cannot betray the positive.

A query and its key share a rank and so the batch's statistics; a network can match the two by these alone. MoCo
therefore encodes the keys of all ranks in shuffled order (He et al., 2020, section 3.3).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ssl_video.utils.distributed import exchange, rank, rows_per_rank


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
    # Drawn on the CPU: equal on all ranks, whatever their devices.
    permutation = torch.randperm(sum(rows), generator=torch.Generator().manual_seed(seed))
    inverse = torch.argsort(permutation)

    @torch.no_grad()
    def unshuffle(outputs: Tensor) -> Tensor:
        return _present(outputs, inverse, rows)

    return _present(tensor, permutation, rows), unshuffle


def _present(tensor: Tensor, permutation: Tensor, rows: list[int]) -> Tensor:
    """This rank's share of the rows of all ranks in the order of a permutation.

    Rows go where they are wanted and nowhere else: clips are large, and all of them on each of many ranks would not
    fit.

    Args:
        tensor: this rank's rows ``[n, ...]``.
        permutation: ``[sum of rows]``, which row of all comes at each place.
        rows: of each rank.
    """
    first = sum(rows[: rank()])
    wanted_by = permutation.split(rows)
    mine = [places[(places >= first) & (places < first + len(tensor))] - first for places in wanted_by]
    sources = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows))[wanted_by[rank()]]
    came = exchange(
        tensor[torch.cat(mine).to(tensor.device)],
        sent=[len(places) for places in mine],
        received=torch.bincount(sources, minlength=len(rows)).tolist(),
    )
    # Those of one rank come in the order in which they are wanted.
    return came[torch.argsort(torch.argsort(sources, stable=True)).to(tensor.device)]
