"""Memory in which loading workers hand over their batches, used again and again.

A batch of clips is tens of megabytes. Shared memory that is new for every batch costs many times its copying: the
system clears each page, maps it in two processes and takes it back. So a worker keeps the memory, the main process
copies a batch out of it when it comes, and says in its last byte that it may be used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

FREE, LENT = 0, 1
# Of a worker; more are out only when nobody takes its batches.
MOST_MEMORIES = 32


class Lent(NamedTuple):
    """A tensor on its way to another process.

    Attributes:
        memory: uint8, shared: the values, and in its last byte whether they are lent.
        dtype: of the values.
        size: of the tensor.
        stride: of the tensor.
    """

    memory: Tensor
    dtype: torch.dtype
    size: Sequence[int]
    stride: Sequence[int]

    def values(self) -> Tensor:
        """The tensor in the shared memory."""
        whole = (len(self.memory) - 1) // self.dtype.itemsize * self.dtype.itemsize
        return self.memory[:whole].view(self.dtype).as_strided(self.size, self.stride)

    def take(self) -> Tensor:
        """The tensor in memory of its own; the shared memory may be used again."""
        own = self.values().clone()
        self.memory[-1] = FREE
        return own


_memories: dict[int, Tensor] = {}  # of this process, by address


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """``[N, ...]`` like torch.stack; in a loading worker in shared memory, from where `lent` sends it."""
    if get_worker_info() is None:
        return torch.stack(list(tensors))
    like = torch.empty(len(tensors), *tensors[0].shape, dtype=tensors[0].dtype, device="meta")
    memory = _free_memory(like.numel() * like.itemsize)
    values = Lent(memory, like.dtype, like.shape, like.stride()).values()
    torch.stack(list(tensors), out=values)
    return values


def lent(tensor: Tensor) -> Tensor | Lent:
    """What is to be sent of a tensor: the memory that `stacked` put it into, or itself where it lies elsewhere."""
    memory = _memories.get(tensor.data_ptr())
    return tensor if memory is None else Lent(memory, tensor.dtype, tensor.shape, tensor.stride())


def _free_memory(count: int) -> Tensor:
    """Shared memory for so many bytes, marked as lent."""
    for address, memory in list(_memories.items()):
        if int(memory[-1]) == FREE:
            if len(memory) >= count + 1:
                memory[-1] = LENT
                return memory
            del _memories[address]  # too small: batches have grown
    new: Tensor = torch.zeros(count + 1, dtype=torch.uint8).share_memory_()
    new[-1] = LENT
    if len(_memories) < MOST_MEMORIES:
        _memories[new.data_ptr()] = new
    return new
