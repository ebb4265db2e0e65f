"""The order in which videos are visited: arithmetic over (seed, epoch, position), nothing accumulated.

Lightning neither asks a sampler for its state nor tells it the epoch in time, so the epoch and the position travel
with every index. A run that stops after any batch goes on with the next one, whatever the workers had prefetched.

The batches of all epochs come from one iteration. An iteration that ends with each epoch would drain the workers, and
on a data set of a few batches they would do little else than start again.
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
    repeats: tuple[int, ...] = (0,)  # which samples of this opening; see data/repeats.py


class BatchOrder(Sampler[list[SampleKey]]):
    """Yields this rank's batches, epoch after epoch, from a given batch on.

    The global batch ``b`` of an epoch holds the positions ``[b * batch_size * world_size, (b + 1) * ...)``; every rank
    takes its own contiguous part, so the same global batch is seen whatever the world size.

    Args:
        rows: ``[M]`` the usable rows of the manifest, fixed for the whole run.
        batch_size: videos per device and batch.
        num_batches: batches of the whole run, over all epochs; None is one epoch.
        first_batch: batches of the run that were consumed before.
        seed: with the epoch it decides the order.
        shuffle: False visits the rows as they are given (evaluation).
        drop_last: leaves out the last incomplete global batch of an epoch (training); otherwise it is kept
            (evaluation).
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        rows: Sequence[int] | NDArray[np.int64],
        *,
        batch_size: int,
        num_batches: int | None = None,
        first_batch: int = 0,
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
        self.rank = rank
        self.world_size = world_size
        whole, rest = divmod(len(self.rows), batch_size * world_size)
        self.batches_per_epoch = whole if drop_last or rest == 0 else whole + 1
        self.num_batches = self.batches_per_epoch if num_batches is None else num_batches
        if not 0 <= first_batch <= self.num_batches:
            raise ValueError(f"first_batch={first_batch} is outside the run's 0 to {self.num_batches} batches.")
        self.first_batch = first_batch

    def __len__(self) -> int:
        """Batches of the whole run, also when the iteration starts in its middle: the trainer counts from the start."""
        return self.num_batches

    def epoch_rows(self, epoch: int) -> NDArray[np.int64]:
        """``[M]`` the rows in the order of one epoch."""
        if not self.shuffle:
            return self.rows
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        rows, rows_epoch = self.rows, -1
        for number in range(self.first_batch, self.num_batches):
            epoch, batch = divmod(number, self.batches_per_epoch)
            if epoch != rows_epoch:
                rows, rows_epoch = self.epoch_rows(epoch), epoch
            start = (batch * self.world_size + self.rank) * self.batch_size
            stop = min(start + self.batch_size, len(rows))
            yield [SampleKey(epoch, position, int(rows[position])) for position in range(start, stop)]
