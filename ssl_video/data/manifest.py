"""A data set as a table: one row per segment of a video, with what reading it needs, its labels and its split."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import platformdirs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssl_video.data.arrow_copy import COPY_VERSION, Digest, map_copy, write_copy
from ssl_video.data.readers.stream import StreamTable
from ssl_video.data.stream_columns import STREAM_COLUMNS, TABLE_SOURCES, restored_table
from ssl_video.data.table_hash import table_hash
from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_atomically

if TYPE_CHECKING:
    from ssl_video.data.motion import Motion

FORMAT_VERSION = 2
# Version 1 had no stream columns: it is read, and they are null. Its numbers were wider.
READ_VERSIONS = (1, FORMAT_VERSION)
HASH_VERSION = 2
compute: Any = pc  # the stubs refuse plain values
METADATA_KEY = b"ssl_video"
OK = "ok"
SPLITS = ("train", "val", "test")

_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("segment_id", pa.string(), nullable=False),
    pa.field("video_id", pa.string(), nullable=False),
    pa.field("path", pa.string(), nullable=False),
    pa.field("start_seconds", pa.float64()),
    pa.field("end_seconds", pa.float64()),
    pa.field("num_frames", pa.int32()),
    pa.field("fps", pa.float64()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("rotation", pa.int32()),
    pa.field("codec", pa.string()),
    pa.field("keyframe_spacing", pa.int32()),
    pa.field("split", pa.string()),
    pa.field("group", pa.string()),
    pa.field("bytes", pa.int64()),
    pa.field("modified_ns", pa.int64()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    # How the file's frames lie in it; see stream_columns.
    pa.field("stream_index", pa.int16()),
    pa.field("is_plain", pa.bool_()),
    pa.field("first_pts", pa.int64()),
    pa.field("pts_step", pa.float64()),
    pa.field("keyframes", pa.list_(pa.int32())),
]
COLUMNS = [field.name for field in _FIELDS]
UNHASHED_COLUMNS = ("modified_ns",)


@dataclass(frozen=True)
class Segment:
    """A stretch of a video file: the whole file, or what lies between two times.

    Attributes:
        row: its row of the manifest.
        segment_id: unique in the manifest.
        video_id: the same for all segments of one video.
        path: the file, relative to the root, with forward slashes.
        first_frame: the segment's first frame, counted in the file.
        num_frames: frames of the segment.
        fps: average frames per second.
        width, height: pixels as displayed, after rotation.
        motion: its motion table, if it has one and its sampler asks for it.
        keyframes: ``[K]`` int32, the frames that decoding can start at without a detour, ascending, counted from the
            segment's first; None where the manifest does not know them, and in folders of images, where all are.
    """

    row: int
    segment_id: str
    video_id: str
    path: str
    first_frame: int
    num_frames: int
    fps: float
    width: int
    height: int
    motion: "Motion | None" = field(default=None, compare=False, repr=False)
    keyframes: NDArray[np.int32] | None = field(default=None, compare=False, repr=False)


class Manifest:
    """The segments of a data set.

    On disk it is Parquet; `open` maps an uncompressed Arrow copy from a cache folder into memory, so that a large
    manifest costs each worker process next to nothing.

    Attributes:
        root: folder that the paths are relative to.
        table: the columns of `COLUMNS`, then the label columns (strings or lists of strings, or null where a video has
            none).
        label_columns: names of the label columns.
        num_left_out: video files under the root that are no part of the data set.
        parquet_file: the file it was opened from; None where it was not, and in other processes.
    """

    def __init__(
        self,
        table: pa.Table,
        *,
        root: Path,
        mapped_file: Path | None = None,
        parquet_file: Path | None = None,
        digest: Digest | None = None,
    ) -> None:
        """Wraps a table that `from_records` or `open` made.

        Args:
            table: a table with this module's metadata.
            root: folder that the paths are relative to.
            mapped_file: the Arrow file that the table is mapped from, if it is; other processes then map it too.
            parquet_file: the file it was opened from, if it was.
            digest: what follows from all rows, where it is known.
        """
        description = _description(table.schema, source="the table")
        self.table = table
        self.root = root
        self.label_columns: list[str] = list(description["label_columns"])
        self.num_left_out: int = description["num_left_out"]
        self._mapped_file = mapped_file
        self.parquet_file = parquet_file
        self._known_digest = digest
        # A row is asked for with every sample: looking a column up by its name takes longer than all else.
        self._columns: dict[str, Any] = dict(zip(table.column_names, table.columns, strict=True))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __reduce__(self) -> tuple[Callable[..., "Manifest"], tuple[Any, ...]]:
        if self._mapped_file is not None:
            return _map_manifest, (self._mapped_file, self.root)
        return _unpickled, (self.table, self.root)

    def mapped_anew(self) -> "Manifest":
        """Returns the same manifest; what is looked at through it leaves this process's memory with it."""
        map_it, arguments = self.__reduce__()
        return map_it(*arguments)

    def segment(self, row: int) -> Segment:
        """Returns a row as a segment; one whose file could not be read has no frames."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of the manifest must be in 0..{len(self) - 1}.")
        values = self._values(row, _SEGMENT_SOURCES)
        first_frame, end_frame = frame_bounds(values)
        keyframes = self._keyframes(row)
        if keyframes is not None and (first_frame, end_frame) != (0, values["num_frames"]):
            keyframes = keyframes[(keyframes >= first_frame) & (keyframes < end_frame)] - np.int32(first_frame)
        return Segment(
            row=row,
            segment_id=values["segment_id"],
            video_id=values["video_id"],
            path=values["path"],
            first_frame=first_frame,
            num_frames=end_frame - first_frame,
            fps=values["fps"] or 0.0,
            width=values["width"] or 0,
            height=values["height"] or 0,
            keyframes=keyframes,
        )

    def stream_table(self, row: int) -> StreamTable | None:
        """Returns the table of frames of a row's whole file, as reading its packets would.

        None where the manifest does not know all of it (irregular times, folders of images, manifests of version 1)
        and where the file is not there or has another size than when it was indexed.
        """
        if self._columns["pts_step"][row].as_py() is None:
            return None
        try:
            size = os.stat(self.file(row)).st_size
        except OSError:
            return None
        if size != self._columns["bytes"][row].as_py():
            return None
        return restored_table(self._values(row, TABLE_SOURCES), keyframes=self._keyframes(row))

    def _values(self, row: int, names: Iterable[str]) -> dict[str, Any]:
        return {name: self._columns[name][row].as_py() for name in names}

    def _keyframes(self, row: int) -> NDArray[np.int32] | None:
        values = self._columns["keyframes"][row].values
        return None if values is None else cast("NDArray[np.int32]", values.to_numpy())

    def path(self, row: int) -> str:
        """Returns the path of a row's file, relative to the root."""
        return str(self._columns["path"][row].as_py())

    def file(self, row: int) -> Path:
        """Returns the absolute path of a row's file; InputError if it would lie outside the root."""
        return self.root / _checked_path(self.path(row))

    def column(self, name: str) -> list[Any]:
        """Returns a column as Python values."""
        if name not in self.table.column_names:
            raise InputError(f"column {name!r} must be one of the manifest's: {', '.join(self.table.column_names)}.")
        return cast("list[Any]", self.table.column(name).to_pylist())

    def labels(self, name: str) -> list[str | list[str] | None]:
        """Returns a label column, None where a video has no label."""
        if name not in self.label_columns:
            have = ", ".join(self.label_columns) or "none"
            raise InputError(f"label {name!r} must be one of the manifest's label columns ({have}).")
        return self.column(name)

    def is_multi_label(self, name: str) -> bool:
        """Returns whether a label column holds lists of classes, of which a video may have several at once."""
        return name in self.label_columns and pa.types.is_list(self.table.schema.field(name).type)

    def units(self) -> list[str]:
        """Returns for each row what must not be separated by a split: its group, or its video where it has none."""
        return cast("list[str]", _unit_column(self.table).to_pylist())

    def is_usable(self) -> NDArray[np.bool_]:
        """Returns for each row whether its file could be read when it was indexed."""
        return cast("NDArray[np.bool_]", compute.equal(self._columns["status"], OK).to_numpy())

    def frame_counts(self) -> NDArray[np.int64]:
        """Returns the number of frames of each row's segment."""
        frames, fps = (_filled(self._columns[name], 0) for name in ("num_frames", "fps"))
        start = _filled(self._columns["start_seconds"], 0.0)
        end = _filled(self._columns["end_seconds"], np.inf)
        first = np.minimum(np.rint(start * fps), frames)
        behind = np.where(np.isinf(end), frames, np.minimum(np.rint(np.where(np.isinf(end), 0, end) * fps), frames))
        return cast("NDArray[np.int64]", np.maximum(behind - first, 0).astype(np.int64))

    def video_numbers(self) -> NDArray[np.int32]:
        """Returns for each row the number of its video; segments of one video have the same."""
        return self._digest.video_numbers

    def unit_ranks(self) -> NDArray[np.int32]:
        """Returns for each row the place of its unit (see `units`) among all units, in their order."""
        return self._digest.unit_ranks

    def status_counts(self) -> dict[str, int]:
        """Returns how many rows have each status, the usable ones under `ok`."""
        counts = self._columns["status"].value_counts()
        return {str(entry["values"]): int(entry["counts"]) for entry in counts.to_pylist()}

    def content_hash(self) -> str:
        """Returns a sha256 over all values but file times: the same for the same data on every machine."""
        return self._digest.content_hash

    @property
    def _digest(self) -> Digest:
        if self._known_digest is None:
            self._known_digest = _digest(self.table, self.label_columns)
        return self._known_digest

    def write(self, path: Path) -> None:
        """Writes Parquet; another process sees the old file or the whole new one."""
        write_atomically(path, lambda temporary: pq.write_table(self.table, temporary, compression="zstd"))

    @classmethod
    def from_records(
        cls,
        records: Iterable[Mapping[str, Any]],
        *,
        root: Path,
        label_columns: Iterable[str] = (),
        num_left_out: int = 0,
    ) -> Self:
        """Makes a manifest of one mapping per segment.

        Args:
            records: columns by name. `path` is required; `video_id` is the path by default, `segment_id` the video
                and its start, `status` ok; what else is left out is null.
            root: folder that the paths are relative to.
            label_columns: names of the label columns, in order.
            num_left_out: video files under the root that are no part of the data set.

        Raises:
            InputError: an unknown column, a path that leaves the root, a split other than train, val and test, or two
                rows with the same segment_id.
        """
        labels = list(label_columns)
        taken = [name for name in labels if name in COLUMNS]
        if taken or len(set(labels)) != len(labels):
            raise InputError(f"label columns {labels} must be distinct and none of {', '.join(COLUMNS)}; rename.")
        rows = [_complete(record, labels) for record in records]
        twice = [name for name, count in Counter(row["segment_id"] for row in rows).items() if count > 1]
        if twice:
            raise InputError(f"segment_id {twice[0]!r} stands in two rows or more; each row needs its own.")
        description = {
            "version": FORMAT_VERSION,
            "label_columns": labels,
            "num_left_out": num_left_out,
            "root": str(root),
        }
        schema = pa.schema(
            [*_FIELDS, *(pa.field(name, _label_type(rows, name)) for name in labels)],
            metadata={METADATA_KEY: json.dumps(description).encode()},
        )
        return cls(pa.Table.from_pylist(rows, schema=schema), root=Path(root))

    @classmethod
    def open(cls, path: Path, *, root: Path | None = None, cache_dir: Path | None = None) -> Self:
        """Opens a Parquet manifest.

        Args:
            path: the Parquet file.
            root: folder that its paths are relative to; the one it was written with by default, and where that is
                relative, it is so to the file's own folder.
            cache_dir: where the Arrow copy is kept; the user's cache folder by default.

        Raises:
            InputError: the file is missing, or no manifest.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                content_key = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(
                f"manifest {path} cannot be read ({error.strerror}); write one with `ssl-video index FOLDER -o {path}`."
            ) from error
        folder = platformdirs.user_cache_path("ssl_video") if cache_dir is None else Path(cache_dir)
        mapped_file = folder / "manifests" / f"{content_key}-{COPY_VERSION}.arrow"
        if not mapped_file.exists():
            _copy_as_arrow(path, mapped_file)
        table, digest = map_copy(mapped_file)
        description = _description(table.schema, source=str(path))
        return cls(
            table,
            root=Path(root or path.absolute().parent / description["root"]),
            mapped_file=mapped_file,
            parquet_file=path,
            digest=digest,
        )


_PLAIN_PATH = re.compile(r"[^./][^/]*(/[^./][^/]*)*")  # no part is empty, hidden or a way up
_SEGMENT_SOURCES = (
    *("segment_id", "video_id", "path", "start_seconds", "end_seconds"),
    *("num_frames", "fps", "width", "height"),
)


def numbered(column: "pa.ChunkedArray[Any]") -> tuple[NDArray[np.int32], "pa.Array[Any]"]:
    """Numbers values in the order of their first appearance.

    Returns:
        ``[N]`` the number of each value, -1 for null, and the values by number.
    """
    encoded: list[Any] = column.dictionary_encode().unify_dictionaries().chunks
    numbers = [compute.fill_null(chunk.indices, -1).to_numpy() for chunk in encoded]
    if not encoded:
        return np.empty(0, dtype=np.int32), pa.array([], column.type)
    return np.concatenate(numbers), encoded[0].dictionary


def text_order(texts: "pa.Array[Any]") -> NDArray[np.int64]:
    """Returns the places of texts in their order, which by bytes of UTF-8 is the same as by characters."""
    return cast("NDArray[np.int64]", compute.sort_indices(texts).to_numpy().astype(np.int64))


def frame_bounds(values: Mapping[str, Any]) -> tuple[int, int]:
    """First frame, and the frame behind the last, of a segment; both stay inside the file."""
    num_frames, fps = values["num_frames"] or 0, values["fps"] or 0.0
    start, end = values["start_seconds"], values["end_seconds"]
    first = 0 if start is None else min(round(start * fps), num_frames)
    behind = num_frames if end is None else min(round(end * fps), num_frames)
    return first, max(first, behind)


def _complete(record: Mapping[str, Any], label_columns: list[str]) -> dict[str, Any]:
    unknown = [name for name in record if name not in COLUMNS and name not in label_columns]
    if unknown or not record.get("path"):
        raise InputError(
            f"record {dict(record)} must have a path and only the manifest's columns and its label columns "
            f"{label_columns}; unknown: {unknown}."
        )
    path = _checked_path(record["path"])
    if record.get("split") not in (None, *SPLITS):
        raise InputError(f"split={record['split']!r} of {path} must be one of {', '.join(SPLITS)}, or empty.")
    video_id = record.get("video_id") or path
    start = record.get("start_seconds")
    segment_id = record.get("segment_id") or (video_id if start is None else f"{video_id}@{start:.3f}")
    return {"status": OK, **record, "path": path, "video_id": video_id, "segment_id": segment_id}


def _label_type(rows: list[dict[str, Any]], name: str) -> pa.DataType:
    is_list = any(isinstance(row.get(name), list) for row in rows)
    return pa.list_(pa.string()) if is_list else pa.string()


def _checked_path(path: str) -> str:
    if _PLAIN_PATH.fullmatch(path):
        return path  # as nearly all are; this is asked with every sample
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise InputError(
            f"path {path!r} of the manifest must be relative to its root and stay inside it; index the folder that "
            "holds all videos."
        )
    return str(relative)


def _filled(column: "pa.ChunkedArray[Any]", value: float) -> NDArray[Any]:
    return cast("NDArray[Any]", compute.fill_null(column, value).to_numpy())


def _digest(table: pa.Table, label_columns: list[str]) -> Digest:
    hashed = [name for name in table.column_names if name not in UNHASHED_COLUMNS]
    described = json.dumps({"version": HASH_VERSION, "label_columns": label_columns})
    units, names = numbered(_unit_column(table))
    ranks = np.empty(len(names), dtype=np.int32)
    ranks[text_order(names)] = np.arange(len(names))
    return Digest(
        content_hash=table_hash(table.select(hashed), described=described),
        video_numbers=numbered(table.column("video_id"))[0],
        unit_ranks=ranks[units],
    )


def _unit_column(table: pa.Table) -> "pa.ChunkedArray[Any]":
    joined = compute.binary_join_element_wise
    group, video = joined("group", table.column("group"), " "), joined("video", table.column("video_id"), " ")
    units: pa.ChunkedArray[Any] = compute.coalesce(group, video)
    return units


def _description(schema: pa.Schema, *, source: str) -> dict[str, Any]:
    description = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    if description.get("version") not in READ_VERSIONS:
        raise InputError(
            f"{source} is no manifest of version {' or '.join(map(str, READ_VERSIONS))} (it says "
            f"{description.get('version')}); write one with `ssl-video index`."
        )
    return cast("dict[str, Any]", description)


def _copy_as_arrow(parquet: Path, target: Path) -> None:
    try:
        table = pq.read_table(parquet)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{parquet} is no Parquet file ({error}); write one with `ssl-video index`.") from error
    description = _description(table.schema, source=str(parquet))
    own = COLUMNS if description["version"] == FORMAT_VERSION else [n for n in COLUMNS if n not in STREAM_COLUMNS]
    if table.column_names != [*own, *description["label_columns"]]:
        missing = [name for name in own if name not in table.column_names]
        raise InputError(
            f"{parquet} must have the manifest's columns, in their order, and its label columns (missing: "
            f"{missing or 'none'}); write it again with `ssl-video index`."
        )
    table = _upgraded(table, description)
    write_copy(table, target, _digest(table, description["label_columns"]))
    pa.default_memory_pool().release_unused()


def _upgraded(table: pa.Table, description: dict[str, Any]) -> pa.Table:
    """A table of this version, with nulls in the columns that an older one had not."""
    if description["version"] == FORMAT_VERSION:
        return table
    for place, column in enumerate(_FIELDS):
        if column.name not in table.column_names:
            table = table.add_column(place, column, pa.nulls(len(table), column.type))
        else:
            table = table.set_column(place, column, table.column(column.name).cast(column.type))
    description = {**description, "version": FORMAT_VERSION}
    return table.replace_schema_metadata({METADATA_KEY: json.dumps(description).encode()})


def _map_manifest(path: Path, root: Path) -> Manifest:
    table, digest = map_copy(path)
    return Manifest(table, root=root, mapped_file=path, digest=digest)


def _unpickled(table: pa.Table, root: Path) -> Manifest:
    return Manifest(table, root=root)
