"""What an offline W&B run's own file holds.

W&B writes its records, protocol buffers, as LevelDB writes its log: pieces in blocks of 32 KiB, after a header of
seven bytes. A file whose writer was killed ends in the middle of a record; what comes before it counts.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

HEADER_BYTES = 7
BLOCK = 32 * 1024
FULL, FIRST, LAST = 1, 2, 4


def read_records(file: Path, *, first_block: int = 0) -> Iterator[Any]:
    """The records of a ``.wandb`` file, up to the first that is not whole.

    Args:
        file: what W&B writes.
        first_block: records that begin before this block are left out.
    """
    with file.open("rb") as opened:
        opened.seek(first_block * BLOCK)
        content = opened.read()
    joined: bytes | None = None
    for kind, piece in _pieces(content, HEADER_BYTES if first_block == 0 else 0):
        if kind in (FULL, FIRST):
            joined = piece
        elif joined is not None:
            joined += piece
        if kind in (FULL, LAST) and joined is not None:
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(joined)
            yield record


def _pieces(content: bytes, place: int) -> Iterator[tuple[int, bytes]]:
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:  # too little for a piece's header: filled with zeros
            place += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, place)
        piece = content[place + 7 : place + 7 + length]
        if zlib.crc32(bytes([kind]) + piece) != checksum:
            return
        yield kind, piece
        place += 7 + length


def read_history(file: Path) -> list[dict[str, Any]]:
    """What was logged, one dictionary per step, with W&B's own ``_step``, ``_runtime`` and ``_timestamp``."""
    return [_row(record) for record in read_records(file) if record.WhichOneof("record_type") == "history"]


def _row(record: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}


def last_record(file: Path, *kinds: str) -> Any:
    """The last record, of these kinds if there are any, or None; the file is read from its end."""
    for block in reversed(range(file.stat().st_size // BLOCK + 1)):
        found = [
            record
            for record in read_records(file, first_block=block)
            if not kinds or record.WhichOneof("record_type") in kinds
        ]
        if found:
            return found[-1]
    return None


def run_files(folder: Path, run_id: str) -> list[Path]:
    """The files of one offline run, oldest first: each start of it made a folder of its own."""
    return sorted(folder.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb"))


def next_step(folder: Path, run_id: str) -> int:
    """The first step that the files of an offline run do not hold; 0 where there are none."""
    found = (last_record(file, "history") for file in run_files(folder, run_id))
    return max((int(_row(record)["_step"]) for record in found if record is not None), default=-1) + 1


def wait_for_free_name(folder: Path, run_id: str) -> None:
    """Waits until the second is over in which a run was started last: W&B writes over a folder of the same name."""
    while (folder / "wandb" / f"offline-run-{datetime.now():%Y%m%d_%H%M%S}-{run_id}").exists():
        time.sleep(0.05)


def wait_until_written(folder: Path, run_id: str, *, seconds: float = 10.0) -> None:
    """Waits for the end of a run's newest file: W&B writes it in a process of its own, and ``finish`` does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and (files := run_files(folder, run_id)):
        last = last_record(files[-1])
        if last is not None and last.WhichOneof("record_type") == "exit":
            return
        time.sleep(0.02)
