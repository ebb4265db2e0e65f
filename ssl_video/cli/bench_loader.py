"""What the loader does for a batch, part by part, on one core of one process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ssl_video.cli.bench_rounds import LOADER_PARTS
from ssl_video.cli.bench_storage import bytes_read_so_far, read_cold
from ssl_video.data.batch import ClipBatch, Sample
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.decoding.decoder import Decoder
from ssl_video.data.semi_batch import SemiBatch

NUM_PROBED = 4  # videos on which it is seen how much of a file decoding reads
WHOLE = 0.9  # share of a file from which on all of it counts as read
FEWEST_VIDEOS = 4


@dataclass(frozen=True)
class LoaderTimes:
    """One measurement of the loader.

    Attributes:
        parts: milliseconds per batch of one worker on one core.
        batches: some that were made; where time was short, of videos that repeat.
        bytes_per_video: read from storage.
        cold_share: of the files, those that were seen to be out of memory before.
        failures: videos that could not be read.
    """

    parts: dict[str, float]
    batches: list[Any]
    bytes_per_video: float
    cold_share: float
    failures: int


class LoaderMeter:
    """Makes batches of a run in this process and takes the time of each part.

    Args:
        datamodule: of the run.
        direct: reads files in this process, to see how many bytes decoding takes of them.
    """

    def __init__(self, datamodule: VideoDataModule, *, direct: Decoder) -> None:
        self.datamodule = datamodule
        self.direct = direct
        self._share: float | None = None

    def measure(self, first_batch: int, *, batches: int, seconds: float) -> LoaderTimes:
        """Times up to ``batches`` batches from ``first_batch`` on, fewer or not all of one when ``seconds`` are over.

        The files are read cold first, which is the storage part; decoding then finds them in memory.
        """
        repeats = self.datamodule.clips_per_open
        loader = self._loader(first_batch, batches)
        if self._share is None:
            self._share = self._read_share(first_batch)
            loader.dataset[next(iter(loader.batch_sampler))[0]]  # a decoding process takes a while to start
        share = self._share
        tally = _Tally(self.datamodule, loader, share=share, deadline=time.perf_counter() + seconds)
        made: list[Any] = []
        with _one_thread():
            for keys in loader.batch_sampler:
                made += tally.make(keys)
                if tally.is_late or len(made) >= batches:
                    break
        parts = {part: 1000 * value / repeats for part, value in tally.seconds_per_opening().items()}
        return LoaderTimes(parts, made, tally.bytes_per_video(), tally.num_cold / tally.num_videos, tally.failures)

    def _loader(self, first_batch: int, batches: int) -> Any:
        return self.datamodule.training_loader(first_batch + batches, first_batch=first_batch).openings

    def _read_share(self, first_batch: int) -> float:
        """Of a file's bytes, those that decoding reads: little of an hour's film, all of a few seconds."""
        own, self.datamodule.decoder = self.datamodule.decoder, self.direct
        try:
            loader = self._loader(first_batch, 1)
        finally:
            self.datamodule.decoder = own
        shares = []
        for key in next(iter(loader.batch_sampler))[:NUM_PROBED]:
            before = bytes_read_so_far()
            loader.dataset[key]
            after = bytes_read_so_far()
            size = _size(self.datamodule.manifest.file(key.row))
            if before is None or after is None or not size:
                return 1.0
            shares.append(min(1.0, (after - before) / size))
        share = median(shares)
        # Decoders that map files into memory leave no trace in the count.
        return 1.0 if share > WHOLE or share == 0 else share


class _Tally:
    """Adds up what the openings of some batches cost."""

    def __init__(self, datamodule: VideoDataModule, loader: Any, *, share: float, deadline: float) -> None:
        self.datamodule = datamodule
        self.loader = loader
        self.share = share
        self.deadline = deadline
        self.seconds = dict.fromkeys(LOADER_PARTS, 0.0)
        self.num_videos = 0
        self.num_openings = 0
        self.num_keys = 1
        self.num_bytes = 0
        self.num_cold = 0
        self.failures = 0

    @property
    def is_late(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() > self.deadline

    def make(self, keys: Sequence[Any]) -> list[Any]:
        """The batches of one opening."""
        self.num_keys = len(keys)
        samples: list[Any] = []
        for key in keys:
            samples.append(self._sample(key))
            if self.is_late and len(samples) >= FEWEST_VIDEOS and not hasattr(key, "labeled"):
                break  # parts of semi-supervised batches cost differently: those are measured whole
        self.num_videos += len(samples)
        self.num_openings += 1
        return self._collated(list(itertools.islice(itertools.cycle(samples), len(keys))))

    def _sample(self, key: Any) -> Any:
        read = read_cold(self.datamodule.manifest.file(key.row), share=self.share)
        self.seconds["storage"] += read.seconds
        self.num_bytes += read.num_bytes
        self.num_cold += read.is_cold
        if self.share < 1:
            self.loader.dataset[key]  # brings what decoding reads into memory, wherever in the file it lies
        started = time.perf_counter()
        sample = self.loader.dataset[key]
        total = time.perf_counter() - started
        decode = sum(own.read_seconds for own in flat(sample))
        self.failures += sum(len(own.failures) for own in flat(sample))
        self.seconds["decode"] += decode
        self.seconds["transform"] += total - decode  # with the sampler, whose arithmetic is next to nothing
        return sample

    def _collated(self, samples: list[Any]) -> list[Any]:
        started = time.perf_counter()
        batches: list[Any] = self.loader.collate_fn(samples)
        if self.loader.num_workers:
            for part in itertools.chain.from_iterable(map(clip_batches, batches)):
                part.clips.share_memory_()  # as a worker does with what it hands over
        self.seconds["collate"] += time.perf_counter() - started
        return batches

    def seconds_per_opening(self) -> dict[str, float]:
        """By part: what is counted in videos is taken for a whole batch."""
        scale = dict.fromkeys(LOADER_PARTS, self.num_keys / self.num_videos) | {"collate": 1 / self.num_openings}
        return {part: value * scale[part] for part, value in self.seconds.items()}

    def bytes_per_video(self) -> float:
        """Read from storage."""
        return self.num_bytes / self.num_videos


def flat(samples: Any) -> Iterator[Sample]:
    """The single samples in whatever a data set makes of one key."""
    if isinstance(samples, Sample):
        yield samples
        return
    for own in samples.values() if isinstance(samples, dict) else samples:
        yield from flat(own)


def clip_batches(batch: ClipBatch | SemiBatch) -> list[ClipBatch]:
    """The parts of a batch."""
    return [batch] if isinstance(batch, ClipBatch) else [batch.labeled, *batch.unlabeled.values()]


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


@contextmanager
def _one_thread() -> Iterator[None]:
    """A worker computes with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
