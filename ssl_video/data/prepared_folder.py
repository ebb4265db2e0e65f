"""A folder of prepared copies of a data set: which files are missing, who makes them, and the manifest of them all.

Nothing is written down of what is done: a file is there or not, and has its source's time. So any number of jobs may
be killed at any moment, and whoever comes next sees what is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pyarrow as pa

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.index import index_annotated
from ssl_video.data.line_process import LineProcess, NoAnswer
from ssl_video.data.manifest import METADATA_KEY, OK, Manifest
from ssl_video.data.motion import motion_folder, use_settings
from ssl_video.data.prepare import (
    PARTIAL_ENDING,
    FileToPrepare,
    PrepareSettings,
    Stretch,
    motion_settings,
)
from ssl_video.data.probe import UNREADABLE
from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_atomically

SETTINGS_FILE = "settings.json"
MANIFEST_FILE = "manifest.parquet"
LOCK_FILE = ".lock"
ENDING = ".mp4"
LONGEST_NAME = 255  # bytes
SAME_TIME_NS = 2_000_000_000  # some file systems keep times to two seconds
PREPARE_PROGRAM = (sys.executable, "-m", "ssl_video.data.prepare")


class DiskFull(Exception):
    """Nothing more can be written."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file: its bytes, or the reason why it was not made."""

    file: FileToPrepare
    file_bytes: int = 0
    reason: str | None = None


def prepared_path(path: str) -> str:
    """Path of what becomes of a file: ``a/b.mp4`` keeps its own, ``a/b.avi`` becomes ``a/b.avi.mp4``."""
    if path.lower().endswith(ENDING):
        return path
    folder, slash, name = path.rpartition("/")
    if len(name.encode()) + len(ENDING) > LONGEST_NAME:
        name = hashlib.sha256(name.encode()).hexdigest()
    return f"{folder}{slash}{name}{ENDING}"


def shard_of(path: str, num_shards: int) -> int:
    """Which of so many jobs makes a file: by its path alone, so that no job need know of the others."""
    return int(hashlib.sha256(path.encode()).hexdigest()[:16], 16) % num_shards


def files_to_prepare(manifest: Manifest) -> list[FileToPrepare]:
    """The files of a manifest that have a usable segment, each once, the largest first.

    Raises:
        InputError: two files would become the same one.
    """
    columns = {name: manifest.column(name) for name in (*_FILE_COLUMNS, *_STRETCH_COLUMNS, "path", "status")}
    files: dict[str, FileToPrepare] = {}
    stretches: dict[str, list[Stretch]] = {}
    for row, path in enumerate(columns["path"]):
        if columns["status"][row] != OK:
            continue
        stretches.setdefault(path, []).append(Stretch(**{name: columns[name][row] for name in _STRETCH_COLUMNS}))
        if path not in files:
            described = {own: columns[name][row] for name, own in _FILE_COLUMNS.items()}
            files[path] = FileToPrepare(source=manifest.file(row), path=prepared_path(path), **described)
    _refuse_equal_names(files)
    whole = [replace(file, stretches=tuple(stretches[path])) for path, file in files.items()]
    # A long video that comes last would keep one core at work while the others wait.
    return sorted(whole, key=lambda file: (-(file.file_bytes or 0), file.path))


_FILE_COLUMNS = {
    **{name: name for name in ("num_frames", "fps", "height", "width", "codec", "modified_ns")},
    "bytes": "file_bytes",
}
_STRETCH_COLUMNS = ("segment_id", "video_id", "start_seconds", "end_seconds")


def _refuse_equal_names(files: Mapping[str, FileToPrepare]) -> None:
    sources: dict[str, str] = {}
    for source, file in files.items():
        if (other := sources.setdefault(file.path, source)) != source:
            raise InputError(f"{other!r} and {source!r} would both become {file.path!r}; rename one and index again.")


def claim(folder: Path, settings: PrepareSettings, *, source_root: Path) -> None:
    """Makes a folder that is to hold prepared files, or finds that it is one of the same kind.

    Raises:
        InputError: it lies in the source's folder, holds other things, or files that were made in another way.
    """
    own, source = folder.resolve(), source_root.resolve()
    if own == source or source in own.parents:
        raise InputError(f"-o {folder} lies in {source_root}, which is only read; name a folder elsewhere.")
    wanted = {"made_by": "ssl-video prepare", **settings.described(), "source": str(source)}
    there = _read_settings(own / SETTINGS_FILE)
    if there is None:
        if own.exists() and (not own.is_dir() or any(not path.name.startswith(".") for path in own.iterdir())):
            raise InputError(f"-o {folder} holds other files; name a folder that does not exist. Nothing was changed.")
        text = json.dumps(wanted, indent=2) + "\n"
        try:
            write_atomically(own / SETTINGS_FILE, lambda temporary: _write(temporary, text))
        except OSError as fault:
            raise InputError(f"-o {folder} cannot be written ({fault.strerror}); name another folder.") from fault
        return
    if there.get("made_by") != wanted["made_by"]:
        raise InputError(f"-o {folder} holds other files; name a folder that does not exist. Nothing was changed.")
    if there != wanted:
        differing = [f"{key}: {there.get(key)} there, {value} asked" for key, value in wanted.items()]
        told = "; ".join(line for line, key in zip(differing, wanted, strict=True) if there.get(key) != wanted[key])
        raise InputError(
            f"-o {folder} holds files that were made otherwise ({told}); ask for the same again, or name another "
            "folder. If only the source has moved, mend its path in settings.json."
        )


def _read_settings(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise InputError(f"{path} cannot be read ({fault}); name another folder.") from None
    return found if isinstance(found, dict) else {}


def _write(path: Path, text: str) -> None:
    path.write_text(text)


@contextlib.contextmanager
def locked(folder: Path, *, alone: bool) -> Iterator[None]:
    """Holds a folder until the process ends, alone, or together with others that do not ask to be alone.

    Raises:
        InputError: another process holds it.
    """
    with (folder / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another ssl-video prepare is at work in {folder}; wait for it. Jobs that work at the same time are "
                "given --shards and --shard, and one without them comes last."
            ) from None
        except OSError:
            pass  # a file system without locks
        yield


def missing(files: Sequence[FileToPrepare], folder: Path) -> list[FileToPrepare]:
    """Those that are not there, or were made of a source that has been replaced since."""
    return [file for file in files if not _is_made(folder / file.path, file.modified_ns)]


def _is_made(path: Path, modified_ns: int | None) -> bool:
    try:
        found = path.stat().st_mtime_ns
    except OSError:
        return False
    return modified_ns is None or abs(found - modified_ns) < SAME_TIME_NS


def remove_partials(folder: Path) -> None:
    """Removes what killed processes left; no other process may be at work."""
    for inside, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(PARTIAL_ENDING):
                (Path(inside) / name).unlink(missing_ok=True)


def deadline_seconds(file: FileToPrepare) -> float:
    """Seconds after which a file is given up: some thirty times what it takes on one core."""
    return 120.0 + file.num_frames * (0.05 + 2e-7 * file.height * file.width)


def prepare_all(
    files: Sequence[FileToPrepare],
    folder: Path,
    settings: PrepareSettings,
    *,
    num_workers: int,
    program: Sequence[str] = PREPARE_PROGRAM,
) -> Iterator[Outcome]:
    """Makes files, each in a child that may crash or hang, and yields what became of them as they are done.

    Args:
        files: what to make.
        folder: where.
        settings: how.
        num_workers: processes of one thread each.
        program: the command that makes them; see ssl_video.data.prepare.

    Raises:
        DiskFull: nothing more can be written.
    """
    if not files:
        return
    tables = motion_folder(folder / MANIFEST_FILE)
    if settings.motion is not None:
        use_settings(tables, motion_settings(settings))
    common = {"folder": str(folder), "motion_folder": str(tables), "settings": _arguments(settings)}
    processes = [LineProcess(program) for _ in range(min(num_workers, len(files)))]
    idle: SimpleQueue[LineProcess] = SimpleQueue()
    for process in processes:
        idle.put(process)

    def make(file: FileToPrepare) -> Outcome:
        process = idle.get()
        try:
            answer = process.ask({**common, "file": file.asked()}, deadline_seconds=deadline_seconds(file))
        except NoAnswer as fault:
            return Outcome(file, reason=str(fault))
        finally:
            idle.put(process)
        if answer.get("is_full"):
            raise DiskFull(answer["reason"])
        return Outcome(file, answer.get("bytes", 0), answer.get("reason"))

    pool = ThreadPoolExecutor(len(processes))
    pending: set[Future[Outcome]] = set()
    coming = iter(files)
    try:
        while True:
            pending |= {pool.submit(make, file) for file in islice(coming, 2 * len(processes) - len(pending))}
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        # After an interrupt files are still being made: their threads come back once the children are gone.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        pool.shutdown()
        for process in processes:
            process.close()


def _arguments(settings: PrepareSettings) -> dict[str, Any]:
    described = settings.described()
    del described["version"]
    return described


def write_manifest(
    source: Manifest, folder: Path, *, reasons: Mapping[str, str], num_workers: int, cache_dir: Path | None = None
) -> Manifest:
    """Writes the manifest of a folder with all rows of the source's; what it says of files is read from the new ones.

    Args:
        source: the source's manifest.
        folder: of the prepared files.
        reasons: why files, named by their new paths, were not made.
        num_workers: processes that look into files.
        cache_dir: see ``Manifest.open``.

    Raises:
        InputError: no file was made at all.
    """
    path = folder / MANIFEST_FILE
    names = ("path", "split", "group", "start_seconds", "end_seconds", "video_id", "segment_id")
    columns = {name: source.column(name) for name in (*names, *source.label_columns)}
    columns["path"] = [prepared_path(value) for value in columns["path"]]
    videos = [
        AnnotatedVideo(
            **{name: columns[name][row] for name in names},
            labels={name: columns[name][row] for name in source.label_columns},
        )
        for row in range(len(source))
    ]
    known = Manifest.open(path, root=folder, cache_dir=cache_dir) if path.exists() else None
    made = index_annotated(folder, videos, previous=known, num_workers=num_workers, num_left_out=source.num_left_out)
    status, reason = made.column("status"), made.column("reason")
    for row, (old, why) in enumerate(zip(source.column("status"), source.column("reason"), strict=True)):
        if old != OK:
            status[row], reason[row] = old, why
        elif columns["path"][row] in reasons:
            status[row], reason[row] = UNREADABLE, f"could not be prepared: {reasons[columns['path'][row]]}"
    table = made.table
    for name, values in (("status", status), ("reason", reason)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, pa.string()))
    # Relative to the file itself, so that the folder can be copied to another disk as it is.
    metadata = dict(table.schema.metadata or {})
    metadata[METADATA_KEY] = json.dumps(json.loads(metadata[METADATA_KEY]) | {"root": "."}).encode()
    made = Manifest(table.replace_schema_metadata(metadata), root=made.root)
    made.write(path)
    return made
