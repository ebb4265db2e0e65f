"""Videos that could not be read while training, kept for the runs to come: one file for all of them.

Each failure is a line of JSON at the end of the file, written at once, so that several ranks and runs may write to it.
A line that a kill has cut off is no fault, and damages no other. An entry belongs to a file as it was (path, bytes and
time of its last change): a file that was replaced since is tried again.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_video.data.manifest import Manifest
from ssl_video.utils.errors import InputError

BYTES_VARIABLE = "SSL_VIDEO_QUARANTINE_BYTES"
compute: Any = pc  # the stubs refuse plain values


@dataclass(frozen=True)
class Quarantined:
    """A video that could not be read.

    Attributes:
        path: relative to the data set's folder, as it stands in manifests.
        bytes: size of the file then.
        modified_ns: its last change then.
        reason: why it could not be read, the last time.
        count: how often that was written down: once by each process of each run that met it.
        root: the data set's folder, the last time.
        time: seconds since 1970, the last time.
    """

    path: str
    bytes: int
    modified_ns: int
    reason: str
    count: int
    root: str
    time: float

    @property
    def key(self) -> tuple[str, int, int]:
        """What the entry belongs to."""
        return self.path, self.bytes, self.modified_ns


def quarantine_file(cache_dir: Path) -> Path:
    """Where the entries of all data sets stand."""
    return cache_dir / "quarantine.jsonl"


def read_quarantine(file: Path, *, num_bytes: int | None = None) -> list[Quarantined]:
    """Returns the entries, each file's once, in the order in which they were first written.

    Args:
        file: see ``quarantine_file``; there need not be one.
        num_bytes: of the file that are looked at: as it only grows, these stay the same.
    """
    try:
        with file.open("rb") as opened:
            lines = opened.read(num_bytes).splitlines()
    except FileNotFoundError:
        return []
    entries: dict[tuple[str, int, int], Quarantined] = {}
    for line in lines:
        entry = _entry(line)
        if entry is not None:
            before = entries.get(entry.key)
            count = 1 if before is None else before.count + 1
            entries[entry.key] = Quarantined(**{**vars(entry), "count": count})
    return list(entries.values())


def _entry(line: bytes) -> Quarantined | None:
    """What a line says; None where it is empty or damaged."""
    try:
        values = json.loads(line)
        return Quarantined(
            path=str(values["path"]),
            bytes=int(values["bytes"]),
            modified_ns=int(values["modified_ns"]),
            reason=str(values["reason"]),
            count=1,
            root=str(values["root"]),
            time=float(values["time"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def keep_in_quarantine(file: Path, manifest: Manifest, row: int, reason: str) -> bool:
    """Writes down that a row's video could not be read, unless the file is not to blame.

    It is not where there is no such file (a disk may be away), or another than was indexed.

    Returns:
        Whether it was written down.
    """
    try:
        found = manifest.file(row).stat()
    except OSError:
        return False
    indexed = manifest.table.column("bytes")[row].as_py()
    if indexed is not None and manifest.file(row).is_file() and indexed != found.st_size:
        return False
    entry = {
        "path": manifest.path(row),
        "bytes": found.st_size,
        "modified_ns": found.st_mtime_ns,
        "reason": reason,
        "root": str(manifest.root.absolute()),
        "time": time.time(),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    # The line break comes first, so that a line which was cut off before stays alone.
    line = f"\n{json.dumps(entry)}\n".encode()
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
    return True


def rows_in_quarantine(manifest: Manifest, rows: NDArray[np.int64], *, cache_dir: Path) -> NDArray[np.int64]:
    """Those of some rows whose file, as it is now, stands in the quarantine; files without an entry are not looked at.

    All processes of a run look at the same part of the file, whatever other runs write to it meanwhile: the first one
    decides how much, and those that it starts read it from the environment.
    """
    file = quarantine_file(cache_dir)
    if not ("LOCAL_RANK" in os.environ and BYTES_VARIABLE in os.environ):
        os.environ[BYTES_VARIABLE] = str(file.stat().st_size if file.exists() else 0)
    entries = read_quarantine(file, num_bytes=int(os.environ[BYTES_VARIABLE]))
    if not entries:
        return np.empty(0, dtype=np.int64)
    names = pa.array([entry.path for entry in entries], pa.string())
    is_named = np.asarray(compute.is_in(manifest.table.column("path"), value_set=names).to_numpy(), dtype=bool)
    keys = {entry.key for entry in entries}
    found = [row for row in rows[is_named[rows]].tolist() if _key(manifest, row) in keys]
    return np.array(found, dtype=np.int64)


def refuse_quarantined(
    quarantined: NDArray[np.int64], rows: NDArray[np.int64], *, cache_dir: Path, max_share: float
) -> None:
    """Keeps a run from training on what a fault of the machine has left.

    Raises:
        InputError: a larger share of the rows is in quarantine.
    """
    if len(quarantined) > max_share * len(rows):
        raise InputError(
            f"{len(quarantined)} of {len(rows)} training videos are in quarantine, above "
            f"dataset.max_unreadable_share={max_share}. {quarantine_file(cache_dir)} names them with the reasons: mend "
            "or remove the videos, delete the lines of those that are sound, raise that share, or set "
            "dataset.quarantine=false."
        )


def _key(manifest: Manifest, row: int) -> tuple[str, int, int] | None:
    try:
        found = manifest.file(row).stat()
    except OSError:
        return None
    return manifest.path(row), found.st_size, found.st_mtime_ns
