"""Reading files as if for the first time, to know what storage alone costs."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20
_PROCESS_IO = Path("/proc/self/io")


@dataclass(frozen=True)
class ColdRead:
    """One read.

    Attributes:
        seconds: from open to close.
        num_bytes: that were read.
        is_cold: the system was seen to have none of it in memory; False also where it cannot be told.
    """

    seconds: float
    num_bytes: int
    is_cold: bool


def read_cold(path: Path, *, share: float = 1.0) -> ColdRead:
    """Reads a file, or a folder of images, after asking the system to forget it.

    Forgetting works on local file systems and on most network ones, not on those that live in memory; written pages
    must have reached the disk. What a server or a disk keeps in its own memory stays there.

    Args:
        path: file or folder.
        share: of its bytes that are wanted, from the beginning.
    """
    seconds, num_bytes, is_cold = 0.0, 0, True
    files = list(_files(path))
    wanted = sum(file.stat().st_size for file in files) * share
    for file in files:
        if num_bytes >= wanted:
            break
        is_cold &= forget(file)
        started = time.perf_counter()
        num_bytes += _read(file, limit=int(wanted - num_bytes))
        seconds += time.perf_counter() - started
    return ColdRead(seconds, num_bytes, is_cold)


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    yield from sorted(file for file in path.rglob("*") if file.is_file())


def _read(path: Path, *, limit: int) -> int:
    done = 0
    with path.open("rb", buffering=0) as file:
        while done < limit and (chunk := file.read(min(_CHUNK, limit - done))):
            done += len(chunk)
    return done


def forget(path: Path) -> bool:
    """Drops a file from the system's memory; whether it is seen to be gone."""
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        # This read answers only from memory.
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
        return False
    except OSError as fault:
        return fault.errno == errno.EAGAIN
    finally:
        os.close(descriptor)


def bytes_read_so_far() -> int | None:
    """Bytes that this process has read from files, from memory or not; None where the system does not count them."""
    try:
        fields = dict(line.split(": ") for line in _PROCESS_IO.read_text().splitlines())
    except OSError:
        return None
    return int(fields["rchar"])
