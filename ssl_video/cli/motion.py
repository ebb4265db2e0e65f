"""`ssl-video motion`: writes the motion tables by which samplers choose frames and patches."""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

from ssl_video.cli.named_data import named_data
from ssl_video.data.manifest import OK, Manifest, Segment
from ssl_video.data.motion import (
    FlowMethod,
    MotionSettings,
    motion_folder,
    table_file_bytes,
    use_settings,
    write_motion,
)
from ssl_video.data.optical_flow import FLOWS, FlowMagnitude, Raft, compute_motion, use_one_thread
from ssl_video.data.readers.base import ReaderFactory
from ssl_video.utils.errors import InputError, UnreadableVideo
from ssl_video.utils.progress import with_progress

FAULTS_SHOWN = 20


@dataclass(frozen=True)
class _Video:
    """One table to be made."""

    segment: Segment
    file: Path
    file_bytes: int


@dataclass(frozen=True)
class _TableMaker:
    """Makes one table; a worker process gets it whole."""

    folder: Path
    open_reader: ReaderFactory
    flow: FlowMagnitude
    settings: MotionSettings

    def __call__(self, video: _Video) -> tuple[str, str | None]:
        """Path of the video, and the reason why it has no table, if it has none."""
        try:
            reader = self.open_reader(video.file)
            try:
                motion = compute_motion(reader, video.segment, flow=self.flow, settings=self.settings)
            finally:
                reader.close()
        except (UnreadableVideo, IndexError) as fault:
            return video.segment.path, str(fault)
        write_motion(self.folder, video.segment, motion, file_bytes=video.file_bytes)
        return video.segment.path, None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command: 0 done, 1 some videos have no table, 2 refused, 130 interrupted."""
    given = _parser().parse_intermixed_args(argv)
    try:
        return _write_tables(given)
    except InputError as fault:
        print(f"ssl-video motion: {fault}", file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print(
            "ssl-video motion: a decoder crashed and took its process along. The tables that are done stay: the same "
            "command goes on, and with --workers 1 --verbose the last video named is the one.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The tables that are done stay: the same command goes on.", file=sys.stderr)
        return 130


def _write_tables(given: argparse.Namespace) -> int:
    data = named_data(given.data, root=given.root, command="ssl-video motion")
    manifest, open_reader = data.manifest, data.open_reader
    if manifest.parquet_file is None:
        raise InputError("this data set's manifest lies in no file; index its folder (ssl-video index) and name that.")
    folder = motion_folder(manifest.parquet_file)
    flow, weights = _flow(given)
    settings = MotionSettings(flow=given.flow, downscale=given.downscale, weights=weights)
    use_settings(folder, settings, overwrite=given.overwrite)
    usable = _usable(manifest)
    wanted = [video for video in usable if table_file_bytes(folder, video.segment) != video.file_bytes]
    make = _TableMaker(folder, open_reader, flow, settings)
    made = _in_processes(make, wanted, workers=0 if given.flow == "raft" else given.workers, verbose=given.verbose)
    failed: list[tuple[str, str]] = []
    for path, reason in with_progress(made, total=len(wanted), title="motion", unit="video"):
        failed += [] if reason is None else [(path, reason)]
    print(f"{len(wanted) - len(failed)} motion tables written, {len(usable) - len(wanted)} were there: {folder}")
    for path, reason in failed[:FAULTS_SHOWN]:
        print(f"  no table for {path}: {reason}", file=sys.stderr)
    if len(failed) > FAULTS_SHOWN:
        print(f"  and for {len(failed) - FAULTS_SHOWN} more", file=sys.stderr)
    return 1 if failed else 0


def _flow(given: argparse.Namespace) -> tuple[FlowMagnitude, str | None]:
    if given.flow != "raft":
        if given.weights is not None:
            raise InputError(f"--weights {given.weights} goes with --flow raft.")
        return FLOWS[given.flow], None
    if given.weights is None:
        raise InputError("--flow raft needs --weights FILE, the state dict of torchvision's raft_large or raft_small.")
    raft = Raft(given.weights, size=given.raft_size, device=given.device)
    return raft, raft.sha256


def _usable(manifest: Manifest) -> list[_Video]:
    status, sizes = manifest.column("status"), manifest.column("bytes")
    segments = [manifest.segment(row) for row, value in enumerate(status) if value == OK]
    return [_Video(own, manifest.file(own.row), sizes[own.row] or 0) for own in segments if own.num_frames]


def _in_processes(
    make: _TableMaker, videos: list[_Video], *, workers: int, verbose: bool
) -> Iterator[tuple[str, str | None]]:
    """Yields what became of each video, as they are done; without workers one by one in this process."""
    workers = min(workers, len(videos))
    if workers < 1:
        for video in videos:
            _name(video, verbose)
            yield make(video)
        return
    # Spawned, not forked: this process holds threads, which a fork would break.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare_worker) as pool:
        coming = iter(videos)
        pending: set[Future[tuple[str, str | None]]] = set()
        try:
            while True:
                # A few at a time: an interrupt waits for few, and a crash is near the video that was named last.
                for video in itertools.islice(coming, 2 * workers - len(pending)):
                    _name(video, verbose)
                    pending.add(pool.submit(make, video))
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare_worker() -> None:
    use_one_thread()
    # A terminal sends Ctrl-C to all processes; the main one ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _name(video: _Video, verbose: bool) -> None:
    if verbose:
        print(video.segment.path, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-video motion",
        description=__doc__,
        epilog="Tables lie beside the manifest (DATA.parquet has DATA.motion), where training finds them. Videos that "
        "have their table are left alone.",
    )
    parser.add_argument("data", nargs="*", help="a manifest.parquet, or dataset=NAME and what belongs to it")
    parser.add_argument("--root", type=Path, help="folder of the manifest's videos, where it is another one now")
    parser.add_argument("--flow", choices=get_args(FlowMethod), default="farneback", help="how motion is measured")
    parser.add_argument("--downscale", type=float, default=0.25, help="share of the size (default 0.25, 64 px or more)")
    parser.add_argument("--workers", type=_not_negative, default=2, help="processes (default 2; 0 uses none)")
    parser.add_argument("--overwrite", action="store_true", help="replace all tables, also those of another kind")
    parser.add_argument("--weights", type=Path, help="RAFT's weights")
    parser.add_argument("--raft-size", choices=("large", "small"), default="large")
    parser.add_argument("--device", default="cpu", help="where RAFT runs, such as cuda")
    parser.add_argument("--verbose", action="store_true", help="name each video before it is read")
    return parser


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} must be at least 0")
    return value
