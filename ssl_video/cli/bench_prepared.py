"""What preparing the videos would give: measured on a few of them where that is quick, else estimated."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from ssl_video.cli.bench_rounds import Prepared
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.dataset import VideoDataset
from ssl_video.data.decoding.decoder import Decoder, Frames
from ssl_video.data.manifest import OK, Manifest, Segment
from ssl_video.data.order import SampleKey
from ssl_video.data.prepare import PrepareSettings
from ssl_video.data.prepared_folder import DiskFull, files_to_prepare, prepare_all, write_manifest
from ssl_video.data.readers.base import Cut
from ssl_video.data.readers.stream import StreamTable
from ssl_video.utils.errors import InputError

SHORT_SIDES = (128, 160, 256, 320)
KEYFRAME_SPACING = 16  # of prepared files
MAX_VIDEOS = 200  # of which sizes and keyframes are looked at
LOOKED_AT = 32  # of which a few are chosen
NUM_VIDEOS = 4
DRAWS = 4  # clips of each video that are decoded
MOST_PIXELS = 400_000_000  # to re-encode: some ten seconds of one core


def short_side_for(crop: int) -> int:
    """The smallest usual short side that a crop of so many pixels fits into."""
    return next((side for side in SHORT_SIDES if side >= crop), SHORT_SIDES[-1])


def estimated(datamodule: VideoDataModule, *, crop: int) -> Prepared:
    """From sizes and keyframes alone: decoding costs about as much as the pixels of all frames that it passes.

    To show a clip a decoder starts at the keyframe before it, half a keyframe spacing on average.
    """
    short_side = short_side_for(crop)
    sampler, manifest = datamodule.sampler, datamodule.manifest
    rows = datamodule.train_rows()[:MAX_VIDEOS].tolist()
    spacings = manifest.column("keyframe_spacing")
    span = (sampler.num_frames - 1) * sampler.frame_stride + 1
    now, then = [], []
    for row in rows:
        segment = manifest.segment(row)
        spacing = spacings[row] or segment.num_frames
        scale = min(1.0, short_side / min(segment.height, segment.width))
        pixels = segment.height * segment.width
        now.append(pixels * min(segment.num_frames, span + spacing / 2))
        then.append(pixels * scale**2 * min(segment.num_frames, span + min(spacing, KEYFRAME_SPACING) / 2))
    return Prepared(short_side, mean(now) / mean(then))


def measured_or_estimated(datamodule: VideoDataModule, *, direct: Decoder, crop: int, num_workers: int) -> Prepared:
    """Prepares a few of the training videos in a temporary folder and decodes them as they are and prepared, in turns.

    Args:
        datamodule: of the run.
        direct: reads files in this process, so that its processor time can be taken, which does not grow when others
            keep the machine busy. Preparing has shown by then that the files do no harm.
        crop: height of its clips in pixels.
        num_workers: processes that re-encode.
    """
    rows = chosen_rows(datamodule)
    guess = estimated(datamodule, crop=crop)
    if not rows:
        return guess
    source = Manifest(datamodule.manifest.table.take(rows), root=datamodule.manifest.root)
    settings = PrepareSettings(short_side=guess.short_side)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            outcomes = list(prepare_all(files_to_prepare(source), folder, settings, num_workers=num_workers))
            reasons = {own.file.path: own.reason for own in outcomes if own.reason is not None}
            made = write_manifest(source, folder, reasons=reasons, num_workers=num_workers, cache_dir=folder)
        except (InputError, DiskFull, OSError):
            return guess  # no room for it here; the advice holds all the same
        return _timed(datamodule, source, made, direct) or guess


def chosen_rows(datamodule: VideoDataModule) -> list[int]:
    """Rows of a few videos of middling size; none where re-encoding them would take long."""
    rows = datamodule.train_rows()
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), LOOKED_AT)).astype(int)].tolist()
    work = {row: _pixels(datamodule.manifest.segment(row)) for row in dict.fromkeys(some)}
    by_work = sorted(work, key=lambda row: work[row])
    middle = max(0, (len(by_work) - NUM_VIDEOS) // 2)
    for few in (by_work[middle : middle + NUM_VIDEOS], by_work[:NUM_VIDEOS]):
        if sum(work[row] for row in few) <= MOST_PIXELS:
            return few
    return []


def _pixels(segment: Segment) -> int:
    return (segment.first_frame + segment.num_frames) * segment.height * segment.width


def _timed(datamodule: VideoDataModule, source: Manifest, made: Manifest, direct: Decoder) -> Prepared | None:
    """Compares the reading of both; None where no video is in both."""
    both = [row for row in range(len(source)) if made.column("status")[row] == source.column("status")[row] == OK]
    if not both:
        return None
    decoders = [_Metered(direct), _Metered(direct)]
    datasets = [
        _dataset(datamodule, manifest, np.asarray(both), decoder)
        for manifest, decoder in zip((source, made), decoders, strict=True)
    ]
    for draw in range(DRAWS + 1):
        for decoder in decoders:
            decoder.counts = draw > 0  # the first time files are brought into memory
        for row in both:
            for side in (0, 1) if draw % 2 else (1, 0):
                datasets[side][SampleKey(draw, row, row)]
    short_side = min(made.segment(both[0]).height, made.segment(both[0]).width)
    return Prepared(short_side, decoders[0].seconds / max(decoders[1].seconds, 1e-9), len(both))


class _Metered:
    """A decoder whose processor time is counted."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.seconds = 0.0
        self.counts = True

    def decode(self, path: Path, cuts: Sequence[Cut], *, table: StreamTable | None = None) -> list[Frames]:
        started = time.process_time()
        frames = self.decoder.decode(path, cuts, table=table)
        self.seconds += (time.process_time() - started) * self.counts
        return frames

    def take_restarts(self) -> Mapping[str, int]:
        return self.decoder.take_restarts()

    def close(self) -> None:
        self.decoder.close()


def _dataset(
    datamodule: VideoDataModule, manifest: Manifest, rows: NDArray[np.int64], decoder: Decoder
) -> VideoDataset:
    nothing = np.full(len(manifest), -1)
    return VideoDataset(
        manifest,
        rows=rows,
        labels=nothing,
        videos=np.arange(len(manifest), dtype=np.int32),
        sampler=datamodule.sampler,
        transform=datamodule.transform,
        decoder=decoder,
        seed=0,
        finish=False,
    )
