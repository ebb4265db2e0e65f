"""A CSV that several processes append to."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path


def append_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Appends rows in one write, to a file that begins with the header.

    Args:
        path: the file, which need not be there.
        header: names of the columns.
        rows: their values.
    """
    if not path.exists():
        # It comes into being with its header, so that no other process can write before that.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
        temporary.write_bytes(_lines([header]))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, _lines(rows))
    finally:
        os.close(descriptor)


def _lines(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
