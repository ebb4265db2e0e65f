"""Fair timing on a machine that is not quiet: contenders take turns in short blocks, and CPU time is what counts.

A block of one contender stands beside a block of each other in time, so that a slow minute is slow for all; ratios are
taken within a round of blocks, and their median and range over the rounds are told. CPU time is that of this process
and of all below it (loading workers, decoding children): what a block costs wherever it is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

Measure = Literal["cpu", "wall"]
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Block:
    """One block of work of one contender.

    Attributes:
        samples: that it delivered.
        cpu_seconds: of this process and all below it, user and system.
        wall_seconds: from its start to its end.
    """

    samples: int
    cpu_seconds: float
    wall_seconds: float

    def seconds_per_sample(self, measure: Measure) -> float:
        """What one sample took."""
        return (self.cpu_seconds if measure == "cpu" else self.wall_seconds) / self.samples


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds: its median, and the least and the most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value or more."""
        return cls(median(values), min(values), max(values))


Contender = Callable[[int], int]
"""Does one block of work, by the block's number (the same number, the same samples), and says how many samples."""


def interleaved(contenders: Mapping[str, Contender], *, rounds: int) -> dict[str, list[Block]]:
    """Runs each contender once to warm up and then once in every round, each round beginning with another.

    Args:
        contenders: by name.
        rounds: blocks of each.

    Returns:
        By name, one block for each round.
    """
    names = list(contenders)
    for name in names:
        contenders[name](0)
    blocks: dict[str, list[Block]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            blocks[name].append(timed(contenders[name], number))
    return blocks


def timed(contender: Contender, number: int) -> Block:
    """One block with its costs."""
    cpu, wall = tree_cpu_seconds(), time.perf_counter()
    samples = contender(number)
    return Block(samples, tree_cpu_seconds() - cpu, time.perf_counter() - wall)


def speedup(ours: Sequence[Block], theirs: Sequence[Block], measure: Measure) -> Spread:
    """How many times as many samples ours gives for the same time, round by round."""
    pairs = zip(ours, theirs, strict=True)
    return Spread.of([their.seconds_per_sample(measure) / our.seconds_per_sample(measure) for our, their in pairs])


def rate(blocks: Sequence[Block], measure: Measure) -> Spread:
    """Samples per second: per core of CPU time, or as they came."""
    return Spread.of([1 / block.seconds_per_sample(measure) for block in blocks])


def tree_cpu_seconds() -> float:
    """CPU time of this process and all below it so far, those that ended and were waited for included."""
    return sum(_cpu_seconds(process) for process in process_tree(os.getpid()))


def process_tree(root: int) -> list[int]:
    """A process and all below it, by their numbers."""
    below: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        fields = _fields(int(folder.name)) if folder.name.isdigit() else None
        if fields is not None:
            below.setdefault(int(fields[1]), []).append(int(folder.name))
    tree = [root]
    for process in tree:  # it grows while it is walked through
        tree += below.get(process, [])
    return tree


def _cpu_seconds(process: int) -> float:
    fields = _fields(process)
    # utime, stime, and the same of its ended children, in clock ticks: proc(5), fields 14 to 17.
    return 0.0 if fields is None else sum(int(ticks) for ticks in fields[11:15]) * TICK_SECONDS


def _fields(process: int) -> list[str] | None:
    """Of ``/proc/N/stat`` what follows the program's name, from the state on; None where the process has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None


@contextmanager
def on_cores(number: int) -> Iterator[None]:
    """Keeps this process, and all that it starts meanwhile, on so many cores.

    Raises:
        ValueError: the machine has fewer.
    """
    before = os.sched_getaffinity(0)
    if number > len(before):
        raise ValueError(f"{number} cores are wanted and this process may use {len(before)}.")
    os.sched_setaffinity(0, sorted(before)[-number:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
