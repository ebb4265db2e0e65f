"""Whether a data set can be trained on, by its index and by decoding a sample of its files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_video.cli.checks.finding import Finding
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.dataset import VideoDataset
from ssl_video.data.decoding.quarantine import Quarantined, quarantine_file, read_quarantine
from ssl_video.data.manifest import OK
from ssl_video.data.order import SampleKey
from ssl_video.utils.errors import UnreadableVideo
from ssl_video.utils.progress import with_progress

FAULTS_SHOWN = 5
# Decoding starts at a keyframe: from here on most of the frames that a clip of 32 frames costs are thrown away.
FAR_APART = 64
# Pixels of the short side above which most of the work is on pixels that the crop throws away.
LARGE = 360


@dataclass(frozen=True)
class Sampled:
    """What reading a sample of the files showed.

    Attributes:
        number: files read.
        failed: path and reason of those that could not be.
        seconds: for all of them together, wall clock.
    """

    number: int
    failed: Sequence[tuple[str, str]]
    seconds: float


def check_data(datamodule: VideoDataModule, *, sample: int) -> Iterator[Finding]:
    """Everything about one data set; reads ``sample`` of its files as training would."""
    yield check_status(
        datamodule.manifest.column("path"), datamodule.manifest.column("status"), datamodule.manifest.column("reason")
    )
    yield check_quarantine(read_quarantine(quarantine_file(datamodule.cache_dir)), root=datamodule.manifest.root)
    yield _check_parts(datamodule)
    yield from _check_files(datamodule)
    rows = datamodule.train_rows()
    yield check_length(
        short=len(datamodule.too_short),
        usable=len(rows),
        min_frames=datamodule.sampler.min_frames,
        end_policy=datamodule.sampler.end_policy,
    )
    if (told := datamodule.check_motion()) is not None:
        yield Finding("note", "motion", told)
    if len(rows):
        yield check_sample(_read_some(datamodule, rows, sample))


def check_status(paths: Sequence[str], status: Sequence[str], reasons: Sequence[str | None]) -> Finding:
    """How many files of the index can be read."""
    bad = [(path, reason) for path, value, reason in zip(paths, status, reasons, strict=True) if value != OK]
    counts = ", ".join(f"{number} {value}" for value, number in Counter(status).most_common())
    if not bad:
        return Finding("ok", "videos", counts)
    return Finding("note", "videos", f"{counts}\n{_named(bad)}", "they are left out of training; mend or remove them")


def check_quarantine(entries: Sequence[Quarantined], *, root: Path) -> Finding:
    """What earlier runs could not read of the data set's folder, and this one would leave out."""
    own = [(entry.path, entry.reason) for entry in entries if Path(entry.root) == root.absolute()]
    if not own:
        return Finding("ok", "quarantine", "no video of this folder is in it")
    fix = "mend or replace them, which is enough; or delete their lines, or set dataset.quarantine=false"
    return Finding("note", "quarantine", f"{len(own)} videos that earlier runs could not read\n{_named(own)}", fix)


def check_length(*, short: int, usable: int, min_frames: int, end_policy: str) -> Finding:
    """How many videos are shorter than what the sampler spans."""
    if not short:
        return Finding("ok", "length", f"all have the {min_frames} frames that the sampler spans")
    what = "are left out" if end_policy == "error" else f"are shown with end_policy={end_policy}"
    told = f"{short} videos are shorter than the {min_frames} frames that the sampler spans, and {what}"
    fix = "sampler.num_frames or sampler.frame_stride lower, or longer videos"
    return Finding("note" if usable else "fault", "length", told, fix)


def check_sample(sampled: Sampled) -> Finding:
    """What reading some files as training does showed."""
    each = 1000 * sampled.seconds / max(1, sampled.number)
    told = f"{sampled.number} videos read as training reads them, {each:.0f} ms each"
    if not sampled.failed:
        return Finding("ok", "sample", told)
    told += f"; {len(sampled.failed)} failed\n{_named(sampled.failed)}"
    fix = "index again with every frame decoded: ssl-video index FOLDER --decode-all -o manifest.parquet"
    return Finding("fault" if 2 * len(sampled.failed) > sampled.number else "note", "sample", told, fix)


def _check_parts(datamodule: VideoDataModule) -> Finding:
    parts = ", ".join(f"{len(rows)} {name}" for name, rows in datamodule.splits.items() if len(rows))
    if not datamodule.class_names:
        fix = "pre-training needs none; to evaluate, give dataset.labels=FILE.csv"
        return Finding("note", "labels", f"none; {parts}", fix)
    return Finding("ok", "labels", f"{datamodule.label} with {len(datamodule.class_names)} classes; {parts}")


def _check_files(datamodule: VideoDataModule) -> Iterator[Finding]:
    """Codec, size, and distance of keyframes: what decoding will cost."""
    names = ("status", "codec", "height", "width", "keyframe_spacing")
    columns = [datamodule.manifest.column(name) for name in names]
    usable = [row for row in zip(*columns, strict=True) if row[0] == OK]
    if not usable:
        return
    codecs = ", ".join(f"{codec} {number}" for codec, number in Counter(row[1] for row in usable).most_common(4))
    side = int(np.median([min(row[2], row[3]) for row in usable]))
    apart = int(np.median([row[4] for row in usable if row[4]] or [1]))
    told = f"{codecs}; short side {side} px, a keyframe every {apart} frames (medians)"
    if apart >= FAR_APART or side >= LARGE:
        fix = "ssl-video prepare writes small copies that decode several times faster; ssl-video bench says how much"
        yield Finding("note", "files", told, fix)
    else:
        yield Finding("ok", "files", told)


def _read_some(datamodule: VideoDataModule, rows: np.ndarray, number: int) -> Sampled:
    chosen = np.random.default_rng(0).permutation(rows)[:number].tolist()
    videos = VideoDataset(
        datamodule.manifest,
        rows=rows,
        labels=datamodule.labels,
        videos=datamodule.videos,
        sampler=datamodule.sampler,
        transform=datamodule.transform,
        decoder=datamodule.decoder,
        seed=0,
        unreadable="report",
    )
    failed: list[tuple[str, str]] = []
    started = time.perf_counter()
    for row in with_progress(chosen, total=len(chosen), title="reading", unit="video"):
        try:
            sample = videos[SampleKey(0, 0, row)]
            failed += [(datamodule.manifest.segment(row).path, failure.reason) for failure in sample.failures]
        except UnreadableVideo as fault:
            failed.append((datamodule.manifest.segment(row).path, str(fault)))
    datamodule.decoder.close()
    return Sampled(len(chosen), failed, time.perf_counter() - started)


def _named(bad: Sequence[tuple[str, str | None]]) -> str:
    lines = [f"{path}: {reason}" for path, reason in bad[:FAULTS_SHOWN]]
    return "\n".join([*lines, *([f"and {len(bad) - FAULTS_SHOWN} more"] if len(bad) > FAULTS_SHOWN else [])])
