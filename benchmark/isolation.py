"""What the decoding child costs: the same reads through it and in the calling process, in turns, on one core."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmark.blocks import Block, on_cores, process_tree, rate, speedup
from benchmark.figures import Figure
from ssl_video.data.decoding.decoder import Decoder, DirectDecoder
from ssl_video.data.decoding.isolated import IsolatedDecoder
from ssl_video.data.readers.base import Cut, FramePart, ReaderFactory
from ssl_video.data.transforms.base import as_clips

LEAST_THROUGHPUT = 0.97
SIZE = (112, 112)
NUM_VIEWS, NUM_FRAMES, STRIDE, NUM_FRAMES_OF_FILES = 2, 16, 2, 250
CHILD, DIRECT = "child", "direct"


def isolation(
    folders: Mapping[str, Path], open_reader: ReaderFactory, *, rounds: int, reads_of_round: int = 10
) -> list[Figure]:
    """Throughput through the child against without it: two views of 16x2 frames at 112 pixels, stacked for a batch.

    Args:
        folders: of videos of 250 frames, by the kind of files.
        open_reader: opens a file for reading frames.
        rounds: of which each gives one ratio.
        reads_of_round: by each of the two, in turns.
    """
    direct = DirectDecoder(open_reader)
    figures = []
    for kind, folder in folders.items():
        paths = sorted(folder.glob("*.mp4"))
        with (
            on_cores(1),
            closing(IsolatedDecoder(open_reader, deadline_seconds=60, recycle_above_mib=1024)) as isolated,
        ):
            decoders: dict[str, Decoder] = {CHILD: isolated, DIRECT: direct}
            _round(decoders, paths, seed=0, reads=2)  # the child starts, libraries load
            blocks = [_round(decoders, paths, seed=seed, reads=reads_of_round) for seed in range(rounds)]
        figures.append(_figure(kind, {name: [block[name] for block in blocks] for name in decoders}))
    return figures


def _round(decoders: Mapping[str, Decoder], paths: Sequence[Path], *, seed: int, reads: int) -> dict[str, Block]:
    """The same reads by each, one by the one and then by the other, every other time in the other order."""
    rng = np.random.default_rng(seed)
    processes = process_tree(os.getpid())
    costs = {name: np.zeros(2) for name in decoders}
    for read in range(reads):
        path, cuts = paths[int(rng.integers(len(paths)))], _cuts(rng)
        for name in sorted(decoders, reverse=bool(read % 2)):
            before = _cpu_and_wall(processes)
            as_clips(decoders[name].decode(path, cuts))
            costs[name] += _cpu_and_wall(processes) - before
    return {name: Block(reads, *cost.tolist()) for name, cost in costs.items()}


def _cuts(rng: np.random.Generator) -> list[Cut]:
    span = NUM_FRAMES * STRIDE
    starts = rng.integers(0, NUM_FRAMES_OF_FILES - span, NUM_VIEWS)
    return [Cut(start + np.arange(0, span, STRIDE), FramePart(size=SIZE)) for start in starts]


def _cpu_and_wall(processes: Sequence[int]) -> np.ndarray:
    # The CPU clock of another process, to the nanosecond: MAKE_PROCESS_CPUCLOCK of linux/posix-timers.h.
    cpu = sum(time.clock_gettime(~process << 3 | 2) for process in processes)
    return np.array([cpu, time.perf_counter()])


def _figure(kind: str, blocks: Mapping[str, list[Block]]) -> Figure:
    milliseconds = {name: 1000 / rate(own, "cpu").median for name, own in blocks.items()}
    return Figure(
        what=f"reads through the decoding child, {kind}",
        against="the same in the calling process",
        bound="least",
        reach=LEAST_THROUGHPUT,
        value=speedup(blocks[CHILD], blocks[DIRECT], "cpu"),
        wall=speedup(blocks[CHILD], blocks[DIRECT], "wall"),
        details={"CPU milliseconds of a read through the child": milliseconds[CHILD], "without": milliseconds[DIRECT]},
    )
