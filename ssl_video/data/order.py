"""The order in which videos are visited: arithmetic over (seed, epoch, position), nothing accumulated.

Lightning neither asks a sampler for its state nor tells it the epoch in time, so the epoch and the position travel
with every index. A run that stops after any batch goes on with the next one, whatever the workers had prefetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


class SampleKey(NamedTuple):
    """What a worker needs to make one sample: all else follows from the seed."""

    epoch: int
    position: int
    row: int


class BatchOrder(Sampler[list[SampleKey]]):
    """Yields this rank's batches of one epoch, from a given batch on; each new iteration is the next epoch.

    The global batch ``b`` of an epoch holds the positions ``[b * batch_size * world_size, (b + 1) * ...)``; every rank
    takes its own contiguous part, so the same global batch is seen whatever the world size.

    Args:
        rows: ``[M]`` the usable rows of the manifest, fixed for the whole run.
        batch_size: videos per device and batch.
        seed: with the epoch it decides the order.
        shuffle: False visits the rows as they are given (evaluation).
        drop_last: leaves out the last incomplete global batch (training); otherwise it is kept (evaluation).
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        rows: Sequence[int] | NDArray[np.int64],
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rows = np.asarray(rows, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self._next = (0, 0)

    def __len__(self) -> int:
        """Number of batches in a whole epoch, also when the next iteration starts in its middle."""
        whole, rest = divmod(len(self.rows), self.batch_size * self.world_size)
        return whole if self.drop_last or rest == 0 else whole + 1

    def start_at(self, epoch: int, batch: int) -> None:
        """Makes the next iteration start at ``batch`` of ``epoch``; ``batch == len(self)`` means the next epoch."""
        if not 0 <= batch <= len(self):
            raise ValueError(f"batch={batch} is outside the epoch's 0 to {len(self)} batches.")
        self._next = (epoch + 1, 0) if batch == len(self) else (epoch, batch)

    def epoch_rows(self, epoch: int) -> NDArray[np.int64]:
        """``[M]`` the rows in the order of one epoch."""
        if not self.shuffle:
            return self.rows
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        # A generator: a DataLoader with workers asks for two iterators and uses one, and only that one may move on.
        epoch, first = self._next
        self._next = (epoch + 1, 0)
        rows = self.epoch_rows(epoch)
        for batch in range(first, len(self)):
            start = (batch * self.world_size + self.rank) * self.batch_size
            stop = min(start + self.batch_size, len(rows))
            yield [SampleKey(epoch, position, int(rows[position])) for position in range(start, stop)]
