"""The order in which labelled and unlabelled videos are visited together: arithmetic, as in ``data/order.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

EpochBy = Literal["shorter", "labeled", "unlabeled"] | int


class SemiKey(NamedTuple):
    """What a worker needs to make one sample, and which part of the batch it is for."""

    epoch: int
    position: int
    row: int
    labeled: bool
    repeats: tuple[int, ...] = (0,)  # which samples of this opening; see data/repeats.py


class _Pool:
    """One of the two lists of videos. Every pass is its own shuffle, and its last incomplete batch is dropped."""

    def __init__(
        self, rows: Sequence[int] | NDArray[np.int64], *, batch_size: int, world_size: int, seed: tuple[int, int]
    ) -> None:
        self.rows = np.asarray(rows, dtype=np.int64)
        self.batch_size = batch_size
        self.batches_per_pass = len(self.rows) // (batch_size * world_size) if batch_size else 0
        self.seed = seed
        self._drawn: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def global_batch(self, epoch: int, batch: int, *, size: int) -> NDArray[np.int64]:
        """``[size]`` rows of one batch of all ranks together; within it, and within a pass, none stands twice."""
        number, place = divmod(batch, self.batches_per_pass)
        if self._drawn is None or self._drawn[0] != (epoch, number):
            shuffled = np.random.default_rng([*self.seed, epoch, number]).permutation(self.rows)
            self._drawn = ((epoch, number), shuffled)
        return self._drawn[1][place * size : (place + 1) * size]


class SemiOrder(Sampler[list[SemiKey]]):
    """Yields this rank's batches: first the labelled videos, then the unlabelled ones.

    An epoch shuffles both lists anew. The list that is longer than the epoch is visited in part, another part each
    epoch; the list that is shorter is visited again and again, each time in another order. Rank r takes the r-th part
    of every global batch, so the same global batch is seen whatever the world size.

    Args:
        labeled: ``[M]`` rows of the labelled part.
        unlabeled: ``[U]`` rows of the unlabelled part.
        batch_size: labelled videos per device and batch; 0 for none.
        unlabeled_batch_size: unlabelled ones.
        epoch_by: what an epoch is: until the ``shorter`` of the two lists ends (TCL zips two loaders), one pass over
            the ``labeled`` or the ``unlabeled`` list, or a number of batches.
        num_batches: batches of the whole run, over all epochs; None is one epoch.
        first_batch: batches of the run that were consumed before.
        seed: with the epoch it decides the order.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        labeled: Sequence[int] | NDArray[np.int64],
        unlabeled: Sequence[int] | NDArray[np.int64],
        *,
        batch_size: int,
        unlabeled_batch_size: int,
        epoch_by: EpochBy = "shorter",
        num_batches: int | None = None,
        first_batch: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        sizes = {True: batch_size, False: unlabeled_batch_size}
        rows = {True: labeled, False: unlabeled}
        self.pools = {
            part: _Pool(rows[part], batch_size=size, world_size=world_size, seed=(seed, int(part)))
            for part, size in sizes.items()
            if size > 0
        }
        self.batches_per_epoch = _batches_per_epoch(self.pools, epoch_by)
        self.num_batches = self.batches_per_epoch if num_batches is None else num_batches
        if not 0 <= first_batch <= self.num_batches:
            raise ValueError(f"first_batch={first_batch} is outside the run's 0 to {self.num_batches} batches.")
        self.first_batch = first_batch
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches of the whole run, also when the iteration starts in its middle: the trainer counts from the start."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[SemiKey]]:
        for number in range(self.first_batch, self.num_batches):
            epoch, batch = divmod(number, self.batches_per_epoch)
            offset = 0
            keys = []
            for part, pool in self.pools.items():
                size = pool.batch_size * self.world_size
                own = slice(self.rank * pool.batch_size, (self.rank + 1) * pool.batch_size)
                rows = pool.global_batch(epoch, batch, size=size)[own].tolist()
                first = offset + batch * size + own.start
                keys += [SemiKey(epoch, first + place, row, part) for place, row in enumerate(rows)]
                # A position stands for one sample of the epoch, so the two parts are counted one after the other.
                offset += self.batches_per_epoch * size
            yield keys


def _batches_per_epoch(pools: dict[bool, _Pool], epoch_by: EpochBy) -> int:
    """Batches of an epoch; 0 where a list doesn't fill one batch."""
    lengths = {part: pool.batches_per_pass for part, pool in pools.items()}
    if min(lengths.values()) == 0:
        return 0
    if isinstance(epoch_by, int):
        return epoch_by
    if epoch_by == "shorter":
        return min(lengths.values())
    return lengths.get(epoch_by == "labeled", min(lengths.values()))
