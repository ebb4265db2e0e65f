"""`ssl-video prepare`: re-encodes a data set so that reading frames from it costs a small part of what it did."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from ssl_video.cli.named_data import named_data
from ssl_video.data.manifest import Manifest
from ssl_video.data.prepare import FileToPrepare, PreparedFlow, PrepareSettings
from ssl_video.data.prepared_folder import (
    MANIFEST_FILE,
    DiskFull,
    Outcome,
    claim,
    files_to_prepare,
    locked,
    missing,
    prepare_all,
    remove_partials,
    shard_of,
    write_manifest,
)
from ssl_video.utils.errors import InputError
from ssl_video.utils.progress import SECONDS_BETWEEN_LINES

FAULTS_SHOWN = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command: 0 done, 1 some files could not be made, 2 refused, 130 interrupted."""
    given = _parser().parse_intermixed_args(argv)
    try:
        return _prepare(given)
    except InputError as fault:
        print(f"ssl-video prepare: {fault}", file=sys.stderr)
        return 2
    except DiskFull as fault:
        print(
            f"ssl-video prepare: {fault}. What is done stays; make room, and the same command goes on.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("Interrupted. What is done stays: the same command goes on.", file=sys.stderr)
        return 130


def _prepare(given: argparse.Namespace) -> int:
    settings = PrepareSettings(
        short_side=given.short_side,
        keyframe_every=given.keyframe_every,
        fps=given.fps,
        quality=given.quality,
        motion=given.motion,
    )
    _check_shard(given)
    data = named_data(given.data, root=given.root, command="ssl-video prepare")
    files = files_to_prepare(data.manifest)
    if not files:
        raise InputError("no video of the data set could be read when it was indexed; there is nothing to prepare.")
    claim(given.output, settings, source_root=data.manifest.root)
    is_whole = given.shards is None
    with locked(given.output, alone=is_whole):
        own = files if is_whole else [file for file in files if shard_of(file.path, given.shards) == given.shard]
        if is_whole:
            remove_partials(given.output)
        failed = _make(own, given.output, settings, num_workers=given.workers)
        if not is_whole:
            print(f"Shard {given.shard} of {given.shards} is done; when all are, the same command without --shards and")
            print(f"--shard tries again what failed and writes {given.output / MANIFEST_FILE}.")
            return 1 if failed else 0
        remove_partials(given.output)
        if len(failed) == len(files):
            print("ssl-video prepare: no file could be prepared, and there is no manifest.", file=sys.stderr)
            return 1
        reasons = {outcome.file.path: str(outcome.reason) for outcome in failed}
        made = write_manifest(
            data.manifest, given.output, reasons=reasons, num_workers=given.workers, cache_dir=data.cache_dir
        )
    _tell_manifest(made, given.output / MANIFEST_FILE)
    return 1 if failed else 0


def _check_shard(given: argparse.Namespace) -> None:
    if (given.shards is None) != (given.shard is None):
        raise InputError("--shards N and --shard I go together: N jobs, of which this is number I, from 0.")
    if given.shards is not None and not 0 <= given.shard < given.shards:
        raise InputError(f"--shard {given.shard} must be in 0..{given.shards - 1}; there are --shards {given.shards}.")


def _make(
    files: Sequence[FileToPrepare], folder: Path, settings: PrepareSettings, *, num_workers: int
) -> list[Outcome]:
    """Makes what is missing of these files, tells what became of them, and returns those that failed."""
    wanted = missing(files, folder)
    started = time.monotonic()
    outcomes = prepare_all(wanted, folder, settings, num_workers=num_workers)
    failed = [outcome for outcome in _with_progress(outcomes, wanted) if outcome.reason is not None]
    seconds = time.monotonic() - started
    print(
        f"{len(wanted) - len(failed)} files prepared in {_duration(seconds)}, {len(files) - len(wanted)} were there"
        + (f", {len(failed)} failed" if failed else "")
    )
    for outcome in failed[:FAULTS_SHOWN]:
        print(f"  {outcome.file.path!r}: {outcome.reason}", file=sys.stderr)
    if len(failed) > FAULTS_SHOWN:
        print(f"  and {len(failed) - FAULTS_SHOWN} more", file=sys.stderr)
    _tell_bytes(files, {outcome.file.path for outcome in failed}, folder)
    return failed


def _tell_bytes(files: Sequence[FileToPrepare], failed: set[str], folder: Path) -> None:
    made = [file for file in files if file.path not in failed]
    before = sum(file.file_bytes or 0 for file in made)
    after = sum((folder / file.path).stat().st_size for file in made)
    if before and after:
        print(f"{_megabytes(before)} before, {_megabytes(after)} after ({after / before:.0%})")


def _tell_manifest(made: Manifest, path: Path) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in sorted(made.status_counts().items()))
    print(f"{path}: {len(made)} rows ({counts})")
    print(f"Train on it: python train.py dataset=manifest dataset.source.file={path}")


def _with_progress(outcomes: Iterator[Outcome], files: Sequence[FileToPrepare]) -> Iterator[Outcome]:
    """Yields the outcomes and tells how far they are: a bar on a terminal, elsewhere a line now and then."""
    progress = _Progress(files)
    is_terminal = sys.stderr.isatty()
    bar = tqdm(total=len(files), desc="prepare", unit="video", disable=not is_terminal, delay=1.0)
    told = time.monotonic()
    with bar:
        for outcome in outcomes:
            progress.add(outcome)
            bar.set_postfix_str(progress.rates(), refresh=False)
            bar.update()
            if not is_terminal and time.monotonic() - told >= SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                print(progress.line(), file=sys.stderr, flush=True)
            yield outcome


class _Progress:
    """How many files are done, how fast, and how long the rest will take."""

    def __init__(self, files: Sequence[FileToPrepare]) -> None:
        self._all = len(files)
        self._work_left = sum(_work(file) for file in files)
        self._work = 0.0
        self._done = self._frames = self._bytes = 0
        self._started = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        file = outcome.file
        self._done += 1
        self._work += _work(file)
        self._work_left -= _work(file)
        self._frames += file.num_frames
        self._bytes += file.file_bytes or 0

    def rates(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._started)
        return f"{self._frames / seconds:.0f} frames/s, {self._bytes / 1e6 / seconds:.1f} MB/s"

    def line(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._started)
        left = _duration(seconds * self._work_left / max(self._work, 1e-9))
        return (
            f"prepare: {self._done} of {self._all} videos, {self._done / seconds:.2f} videos/s, {self.rates()}, "
            f"{left} left"
        )


def _work(file: FileToPrepare) -> float:
    """What a file costs, in pixels: files come the largest first, so that their number says little of the time."""
    return float(file.num_frames) * file.height * file.width


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB" if number < 1e9 else f"{number / 1e9:.2f} GB"


def _parser() -> argparse.ArgumentParser:
    defaults = PrepareSettings()
    parser = argparse.ArgumentParser(
        prog="ssl-video prepare",
        description=__doc__,
        epilog="Files are H.264 without audio, upright, under the source's own names. A file is complete or absent: "
        "the same command goes on after a kill. Several jobs share the work with --shards N --shard I; when they are "
        "done, one more without these two writes the manifest. Annotations by frame (masks, boxes) fit the new files, "
        "scaled to their size, unless --fps is given.",
    )
    parser.add_argument("data", nargs="*", help="a manifest.parquet, or dataset=NAME and what belongs to it")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the new files")
    parser.add_argument("--root", type=Path, help="folder of the manifest's videos, where it is another one now")
    parser.add_argument("--short-side", type=int, default=defaults.short_side, help="pixels, even (default 128)")
    parser.add_argument("--keyframe-every", type=int, default=defaults.keyframe_every, help="frames (default 16)")
    parser.add_argument("--fps", type=float, help="constant frame rate; the default keeps every frame")
    parser.add_argument("--quality", type=int, default=defaults.quality, help="CRF; smaller is better (default 23)")
    parser.add_argument(
        "--motion",
        nargs="?",
        choices=get_args(PreparedFlow),
        const="farneback",
        help="also make the tables of ssl-video motion, of the same decoding (default flow: farneback)",
    )
    parser.add_argument("--workers", type=_positive, default=_num_cores(), help="processes (default: all cores)")
    parser.add_argument("--shards", type=_positive, help="jobs that share the work")
    parser.add_argument("--shard", type=int, help="which of them this is, from 0")
    return parser


def _num_cores() -> int:
    """Cores that this process may use; a cluster's job often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value
