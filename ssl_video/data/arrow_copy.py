"""A manifest's table as an Arrow file that processes map into memory: what none looks at costs nothing.

Pages that several processes look at are in memory once. What follows from all rows (a hash, numbers for names) is
worked out when the copy is written and stands in it, so that no run has to do it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssl_video.utils.files import write_atomically

COPY_VERSION = 3  # to be raised when the same table is copied in another way
_KEY = b"ssl_video_copy"
# Mostly a video is one segment that is named by its path: these columns then are one.
_MAY_BE_PATHS = ("segment_id", "video_id")
_NUMBERS = ("video_numbers", "unit_ranks")
_COLUMN = "ssl_video: {}"  # a column that no label may be called by


@dataclass(frozen=True)
class Digest:
    """What follows from all rows of a manifest.

    Attributes:
        content_hash: of the data, the same on every machine.
        video_numbers: ``[N]`` int32, the number of each row's video.
        unit_ranks: ``[N]`` int32, the place of each row's unit (what no split may divide) among all, in their order.
    """

    content_hash: str
    video_numbers: NDArray[np.int32]
    unit_ranks: NDArray[np.int32]


def write_copy(table: pa.Table, target: Path, digest: Digest) -> None:
    """Writes a table and what follows from it; another process sees no file or the whole one."""
    same = [name for name in _MAY_BE_PATHS if table.column(name).equals(table.column("path"))]
    told = {"content_hash": digest.content_hash, "columns": table.column_names, "same_as_path": same}
    metadata: dict[Any, Any] = {**(table.schema.metadata or {}), _KEY: json.dumps(told)}
    kept = table.drop_columns(same)
    for name in _NUMBERS:
        kept = kept.append_column(_COLUMN.format(name), pa.array(getattr(digest, name)))
    kept = kept.replace_schema_metadata(metadata)

    def write(temporary: Path) -> None:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, kept.schema) as writer:
            writer.write_table(kept)

    write_atomically(target, write)


def map_copy(path: Path) -> tuple[pa.Table, Digest]:
    """Maps a copy: the table as it was, and what follows from it."""
    kept = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
    metadata: dict[Any, Any] = {**(kept.schema.metadata or {})}
    told = json.loads(metadata.pop(_KEY))
    fields, columns = [], []
    for name in told["columns"]:
        source = "path" if name in told["same_as_path"] else name
        fields.append(kept.schema.field(source).with_name(name))
        columns.append(kept.column(source))
    numbers = {name: kept.column(_COLUMN.format(name)).to_numpy() for name in _NUMBERS}
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=metadata))
    return table, Digest(told["content_hash"], **numbers)
