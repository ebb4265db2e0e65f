"""Files and folders that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` fill a temporary file beside ``path``, then renames it; a fault leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may write the same file, and on two machines they may have the same number.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def link_atomically(source: Path, target: Path) -> None:
    """Makes ``target`` a second name of a file, or a copy where the file system has no hard links; whole or not at all.

    A file that is only ever replaced, never written to, can be shared so: each name keeps what it had.
    """

    def link(temporary: Path) -> None:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    write_atomically(target, link)


def remove_partial(folder: Path) -> None:
    """Removes what killed processes left half written in a folder that nobody else writes to."""
    for file in folder.glob(".*.partial"):
        file.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes a rename outlast a power cut, where the file system can: the name is the folder's, not the file's."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_folder_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` fill a temporary folder beside ``path``, then renames it, in the place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    temporary.mkdir()
    try:
        write(temporary)
        for file in temporary.iterdir():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        # A folder with something in it cannot be renamed over, and another process may bring it back in between.
        for attempts_left in (2, 1, 0):
            shutil.rmtree(path, ignore_errors=True)
            try:
                os.replace(temporary, path)
                break
            except OSError:
                if not attempts_left:
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
