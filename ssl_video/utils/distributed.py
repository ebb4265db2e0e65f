"""What several processes need of each other: who am I, everybody's rows, and sums, with or without a gradient.

Every function also works in one process that never started ``torch.distributed``, where it does nothing,
so that calling code has no branch for it. In several processes all ranks must make the same calls in the same order.

Why the gradients are *summed* over ranks: a row that this rank gathered from another one enters this rank's loss, so
that row's gradient is the sum of what all ranks' losses say about it. With DDP, which averages the parameters'
gradients over ranks, a loss that is the mean over a rank's own rows then has exactly the gradient of the mean over all
rows in one process; no factor of world size is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

Item = TypeVar("Item")


_alone = False


def _is_running() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process is the only one, for what one rank computes while the others go on."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def rank() -> int:
    """Number of this process among all, from 0; 0 in one process."""
    return dist.get_rank() if _is_running() else 0


def world_size() -> int:
    """Number of processes; 1 when ``torch.distributed`` was not started."""
    return dist.get_world_size() if _is_running() else 1


def is_divided(module: nn.Module) -> bool:
    """Whether no process has the whole module, so that only all together can run it."""
    return world_size() > 1 and any(isinstance(parameter, DTensor) for parameter in module.parameters())


def rows_per_rank(tensor: Tensor) -> list[int]:
    """Length of ``tensor``'s first dimension on every rank, in rank order."""
    if tensor.ndim == 0:
        raise ValueError("A tensor without dimensions has no rows to gather; pass tensor.reshape(1).")
    if world_size() == 1:
        return [len(tensor)]
    own = torch.tensor([len(tensor)], device=tensor.device)
    counts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(counts, own)
    return [int(count) for count in torch.cat(counts).tolist()]


def gather(tensor: Tensor) -> Tensor:
    """Rows of all ranks, without gradient.

    Args:
        tensor: ``[n, ...]``; ``n`` may differ between ranks, the other dimensions may not.

    Returns:
        ``[sum of n, ...]`` in rank order, the same on every rank.
    """
    rows = rows_per_rank(tensor)
    return tensor.detach() if len(rows) == 1 else _gather(tensor.detach(), rows)


def gather_with_grad(tensor: Tensor) -> Tensor:
    """As ``gather``, but the gradient flows back: each rank's rows receive the sum over ranks of their gradients."""
    return tensor if world_size() == 1 else cast(Tensor, _GatherWithGrad.apply(tensor))


def sum_with_grad(tensor: Tensor) -> Tensor:
    """Elementwise sum over ranks of equally shaped tensors; the gradient is summed over ranks too."""
    return tensor if world_size() == 1 else cast(Tensor, _SumWithGrad.apply(tensor))


def smallest(tensor: Tensor) -> Tensor:
    """Elementwise minimum over ranks of equally shaped tensors, without gradient; a NaN of any rank may be lost."""
    if world_size() == 1:
        return tensor.detach()
    least = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return least


def gather_objects(value: Item) -> list[Item]:
    """What every rank passed, in rank order, the same on every rank; it is pickled on the way.

    No rank goes on before all have come here.
    """
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def exchange(tensor: Tensor, *, sent: list[int], received: list[int]) -> Tensor:
    """Sends each rank its own rows, without gradient; every row travels once.

    Args:
        tensor: ``[sum of sent, ...]``, the rows for rank 0, then those for rank 1, and so on.
        sent: rows for each rank.
        received: rows from each rank; what those ranks have for this one in their ``sent``.

    Returns:
        ``[sum of received, ...]``, the rows from rank 0, then those from rank 1, and so on.
    """
    if world_size() == 1:
        return tensor.detach()
    rows = tensor.new_empty(sum(received), *tensor.shape[1:])
    dist.all_to_all_single(rows, tensor.detach().contiguous(), received, sent)
    return rows


def _gather(tensor: Tensor, rows: list[int]) -> Tensor:
    # The collective wants equal shapes, so every rank pads to the longest and the padding is cut off afterwards.
    padded = tensor.new_zeros(max(rows), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in rows]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])


def _sum(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        rows = rows_per_rank(tensor)
        start = sum(rows[: rank()])
        ctx.own_rows = slice(start, start + len(tensor))
        return _gather(tensor, rows)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return _sum(grad_outputs[0])[ctx.own_rows]


class _SumWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _sum(tensor)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return _sum(grad_outputs[0])
