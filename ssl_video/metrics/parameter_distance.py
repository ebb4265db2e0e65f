"""How far one network's parameters lie from another's."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def relative_distance(parameters: Iterable[Tensor], others: Iterable[Tensor]) -> Tensor:
    """Return the length of the difference of all parameters over the length of ``others``, a scalar.

    Args:
        parameters: of the copy.
        others: of the network it is a copy of, in the same order.
    """
    pairs = list(zip(parameters, others, strict=True))
    # One by one: the differences of all together would be a second network in memory.
    apart = [torch.linalg.vector_norm(one - other) for one, other in pairs]
    length = [torch.linalg.vector_norm(other) for _, other in pairs]
    distance: Tensor = torch.linalg.vector_norm(torch.stack(apart)) / torch.linalg.vector_norm(torch.stack(length))
    return distance
