"""A data set as a table: one row per segment of a video, with what reading it needs, its labels and its split."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self, cast

import platformdirs
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_atomically

if TYPE_CHECKING:
    from ssl_video.data.motion import Motion

FORMAT_VERSION = 1
METADATA_KEY = b"ssl_video"
OK = "ok"
SPLITS = ("train", "val", "test")

_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("segment_id", pa.string(), nullable=False),
    pa.field("video_id", pa.string(), nullable=False),
    pa.field("path", pa.string(), nullable=False),
    pa.field("start_seconds", pa.float64()),
    pa.field("end_seconds", pa.float64()),
    pa.field("num_frames", pa.int64()),
    pa.field("fps", pa.float64()),
    pa.field("width", pa.int64()),
    pa.field("height", pa.int64()),
    pa.field("rotation", pa.int64()),
    pa.field("codec", pa.string()),
    pa.field("keyframe_spacing", pa.int64()),
    pa.field("split", pa.string()),
    pa.field("group", pa.string()),
    pa.field("bytes", pa.int64()),
    pa.field("modified_ns", pa.int64()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
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
        self, table: pa.Table, *, root: Path, mapped_file: Path | None = None, parquet_file: Path | None = None
    ) -> None:
        """Wraps a table that `from_records` or `open` made.

        Args:
            table: a table with this module's metadata.
            root: folder that the paths are relative to.
            mapped_file: the Arrow file that the table is mapped from, if it is; other processes then map it too.
            parquet_file: the file it was opened from, if it was.
        """
        description = _description(table.schema, source="the table")
        self.table = table
        self.root = root
        self.label_columns: list[str] = list(description["label_columns"])
        self.num_left_out: int = description["num_left_out"]
        self._mapped_file = mapped_file
        self.parquet_file = parquet_file

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __reduce__(self) -> tuple[Callable[..., "Manifest"], tuple[Any, ...]]:
        if self._mapped_file is not None:
            return _map_manifest, (self._mapped_file, self.root)
        return _unpickled, (self.table, self.root)

    def segment(self, row: int) -> Segment:
        """Returns a row as a segment; one whose file could not be read has no frames."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of the manifest must be in 0..{len(self) - 1}.")
        values = {name: self.table.column(name)[row].as_py() for name in _SEGMENT_SOURCES}
        first_frame, end_frame = frame_bounds(values)
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
        )

    def file(self, row: int) -> Path:
        """Returns the absolute path of a row's file; InputError if it would lie outside the root."""
        path = self.table.column("path")[row].as_py()
        return self.root / _checked_path(path)

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
        groups, videos = self.column("group"), self.column("video_id")
        return [
            f"video {video}" if group is None else f"group {group}" for group, video in zip(groups, videos, strict=True)
        ]

    def status_counts(self) -> dict[str, int]:
        """Returns how many rows have each status, the usable ones under `ok`."""
        return dict(Counter(self.column("status")))

    def content_hash(self) -> str:
        """Returns a sha256 over all values but file times: the same for the same data on every machine."""
        digest = hashlib.sha256(json.dumps({"version": FORMAT_VERSION, "label_columns": self.label_columns}).encode())
        for name in self.table.column_names:
            if name not in UNHASHED_COLUMNS:
                digest.update(json.dumps([name, self.column(name)], separators=(",", ":")).encode())
        return digest.hexdigest()

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
            root: folder that its paths are relative to; the one it was written with by default.
            cache_dir: where the Arrow copy is kept; the user's cache folder by default.

        Raises:
            InputError: the file is missing, or no manifest.
        """
        path = Path(path)
        try:
            content_key = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(
                f"manifest {path} cannot be read ({error.strerror}); write one with `ssl-video index FOLDER -o {path}`."
            ) from error
        folder = platformdirs.user_cache_path("ssl_video") if cache_dir is None else Path(cache_dir)
        mapped_file = folder / "manifests" / f"{content_key}.arrow"
        if not mapped_file.exists():
            _copy_as_arrow(path, mapped_file)
        table = _map_table(mapped_file)
        description = _description(table.schema, source=str(path))
        return cls(table, root=Path(root or description["root"]), mapped_file=mapped_file, parquet_file=path)


_SEGMENT_SOURCES = (
    *("segment_id", "video_id", "path", "start_seconds", "end_seconds"),
    *("num_frames", "fps", "width", "height"),
)


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
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise InputError(
            f"path {path!r} of the manifest must be relative to its root and stay inside it; index the folder that "
            "holds all videos."
        )
    return str(relative)


def _description(schema: pa.Schema, *, source: str) -> dict[str, Any]:
    description = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    if description.get("version") != FORMAT_VERSION:
        raise InputError(
            f"{source} is no manifest of version {FORMAT_VERSION} (it says {description.get('version')}); write one "
            "with `ssl-video index`."
        )
    return cast("dict[str, Any]", description)


def _copy_as_arrow(parquet: Path, target: Path) -> None:
    try:
        table = pq.read_table(parquet)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{parquet} is no Parquet file ({error}); write one with `ssl-video index`.") from error
    _description(table.schema, source=str(parquet))

    def write(temporary: Path) -> None:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    write_atomically(target, write)


def _map_table(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()


def _map_manifest(path: Path, root: Path) -> Manifest:
    return Manifest(_map_table(path), root=root, mapped_file=path)


def _unpickled(table: pa.Table, root: Path) -> Manifest:
    return Manifest(table, root=root)
