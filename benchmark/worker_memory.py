"""Whether a loading worker, or its decoding child, grows: resident memory after few clips and after many."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

from benchmark.blocks import Spread, process_tree
from benchmark.figures import Figure
from benchmark.loading import BATCH_SIZE, NUM_VIEWS, our_data

EARLY_CLIPS = 1_000
LATE_CLIPS = 20_000
MOST_GROWTH = 1.05
READINGS = 5  # of which the median is taken, a few batches apart


def worker_memory(
    root: Path, *, early: int = EARLY_CLIPS, late: int = LATE_CLIPS, overrides: Sequence[str] = ()
) -> Figure:
    """Resident memory of one worker and its decoding child after ``late`` clips against after ``early``.

    Args:
        root: a folder with a handful of videos, which come again and again.
        early: clips.
        late: clips.
        overrides: of the training configuration.
    """
    datamodule = our_data(root, augment_on="device", num_workers=1, overrides=overrides)
    clips_per_batch = BATCH_SIZE * NUM_VIEWS
    before, after = (number // clips_per_batch for number in (early, late))
    others = set(process_tree(os.getpid()))
    batches = iter(datamodule.training_loader(after + READINGS + 1))
    for _ in islice(batches, before):
        pass
    first = _readings(batches, others)
    for _ in islice(batches, after - before - READINGS):
        pass
    last = _readings(batches, others)
    growth = [sum(late_sizes) / sum(early_sizes) for early_sizes, late_sizes in zip(first, last, strict=True)]
    details = {
        f"MB of {name} after {early} clips": sizes for name, sizes in zip(_names(first[0]), first[-1], strict=True)
    }
    details |= {f"MB of {name} after {late}": sizes for name, sizes in zip(_names(last[0]), last[-1], strict=True)}
    return Figure(
        what=f"resident memory of a worker and its decoding child after {late} clips",
        against=f"after {early}",
        bound="most",
        reach=MOST_GROWTH,
        value=Spread.of(growth),
        unit="ratio of resident memory",
        details=details,
    )


def _readings(batches: object, others: Collection[int]) -> list[list[float]]:
    """Megabytes of the worker, and of the child if it has one, after each of a few batches; not of other processes."""
    readings = []
    for _ in islice(batches, READINGS):  # type: ignore[call-overload]
        processes = [process for process in process_tree(os.getpid()) if process not in others]
        readings.append([resident_mb(process) for process in processes])
    return readings


def _names(sizes: Sequence[float]) -> list[str]:
    return ["the worker", "its child"][: len(sizes)]


def resident_mb(process: int) -> float:
    """Resident memory, in 10^6 bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"process {process} has no resident memory; it has ended.")
