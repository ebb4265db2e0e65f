import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_video.data.manifest import METADATA_KEY, Manifest, Segment
from ssl_video.data.splits import class_indices, split_rows
from ssl_video.data.stream_columns import STREAM_COLUMNS
from ssl_video.utils.errors import InputError

RECORD: dict[str, Any] = {
    "path": "walking/a.mp4",
    "num_frames": 100,
    "fps": 25.0,
    "width": 320,
    "height": 240,
    "rotation": 0,
    "codec": "h264",
    "keyframe_spacing": 12,
    "split": "train",
    "group": "g01",
    "bytes": 1234,
    "modified_ns": 1_700_000_000_000_000_000,
    "label": "walking",
}


def make(*records: dict[str, Any], root: Path = Path("/videos"), labels: tuple[str, ...] = ("label",)) -> Manifest:
    return Manifest.from_records(records or [RECORD], root=root, label_columns=labels)


def test_a_row_without_bounds_is_the_whole_file() -> None:
    manifest = make()
    assert len(manifest) == 1
    assert manifest.segment(0) == Segment(
        row=0,
        segment_id="walking/a.mp4",
        video_id="walking/a.mp4",
        path="walking/a.mp4",
        first_frame=0,
        num_frames=100,
        fps=25.0,
        width=320,
        height=240,
    )
    assert manifest.file(0) == Path("/videos/walking/a.mp4")
    assert manifest.labels("label") == ["walking"]
    assert manifest.column("split") == ["train"]


@pytest.mark.parametrize(
    ("start", "end", "first_frame", "num_frames"),
    [(1.0, 2.0, 25, 25), (None, 2.0, 0, 50), (3.0, None, 75, 25), (3.0, 99.0, 75, 25), (9.0, 10.0, 100, 0)],
)
def test_bounds_are_seconds_of_the_file(
    start: float | None, end: float | None, first_frame: int, num_frames: int
) -> None:
    segment = make({**RECORD, "start_seconds": start, "end_seconds": end}).segment(0)
    assert (segment.first_frame, segment.num_frames) == (first_frame, num_frames)


def test_segments_of_one_video_share_its_id() -> None:
    manifest = make({**RECORD, "start_seconds": 0.0}, {**RECORD, "start_seconds": 2.0})
    assert manifest.segment(0).video_id == manifest.segment(1).video_id
    assert manifest.segment(0).segment_id != manifest.segment(1).segment_id
    with pytest.raises(InputError, match="each row needs its own"):
        make(RECORD, RECORD)


def test_an_unreadable_row_has_no_frames() -> None:
    manifest = make({"path": "a.mp4", "status": "unreadable", "reason": "cannot be opened"})
    assert manifest.segment(0).num_frames == 0
    assert manifest.labels("label") == [None]
    assert manifest.status_counts() == {"unreadable": 1}


def test_writing_and_opening_gives_the_same(tmp_path: Path) -> None:
    manifest = make(RECORD, {**RECORD, "path": "b.mp4", "label": None})
    path = tmp_path / "out" / "manifest.parquet"
    manifest.write(path)
    opened = Manifest.open(path, cache_dir=tmp_path / "cache")
    assert opened.table.equals(manifest.table)
    assert (opened.root, opened.label_columns) == (Path("/videos"), ["label"])
    assert opened.content_hash() == manifest.content_hash()
    assert Manifest.open(path, root=tmp_path, cache_dir=tmp_path / "cache").root == tmp_path
    assert [file.name for file in path.parent.iterdir()] == ["manifest.parquet"], "no temporary file is left"


def test_the_cached_copy_is_mapped_and_kept_by_content(tmp_path: Path) -> None:
    path, cache = tmp_path / "manifest.parquet", tmp_path / "cache"
    make(*({**RECORD, "path": f"{number}.mp4"} for number in range(2000))).write(path)
    before = pa.total_allocated_bytes()
    opened = Manifest.open(path, cache_dir=cache)
    again = Manifest.open(path, cache_dir=cache)
    assert pa.total_allocated_bytes() - before < 100_000 < opened.table.nbytes, "the second opening copies nothing"
    assert len(list(cache.rglob("*.arrow"))) == 1
    make({**RECORD, "path": "other.mp4"}).write(path)
    assert Manifest.open(path, cache_dir=cache).column("path") == ["other.mp4"]
    assert again.segment(1999).path == "1999.mp4"


def test_a_mapped_manifest_travels_to_workers_by_its_file(tmp_path: Path) -> None:
    made = make(*({**RECORD, "path": f"{number}.mp4"} for number in range(2000)))
    made.write(tmp_path / "manifest.parquet")
    opened = Manifest.open(tmp_path / "manifest.parquet", cache_dir=tmp_path)
    message = pickle.dumps(opened)
    assert len(message) < 1000
    assert pickle.loads(message).table.equals(opened.table)
    assert pickle.loads(pickle.dumps(made)).table.equals(made.table)


def test_the_hash_is_of_the_data_and_nothing_else() -> None:
    one = make().content_hash()
    assert make({**RECORD, "modified_ns": 1}, root=Path("/elsewhere")).content_hash() == one
    for name, value in {"num_frames": 99, "label": "running", "split": "test", "path": "b.mp4", "status": "x"}.items():
        assert make({**RECORD, name: value}).content_hash() != one, name
    two = make(RECORD, {**RECORD, "path": "b.mp4"}).content_hash()
    assert make({**RECORD, "path": "b.mp4"}, RECORD).content_hash() != two, "rows have an order"


def test_an_old_manifest_is_read_and_what_it_does_not_tell_is_unknown(tmp_path: Path) -> None:
    table = make().table.drop_columns(list(STREAM_COLUMNS))
    description = json.loads(table.schema.metadata[METADATA_KEY]) | {"version": 1}
    place = table.column_names.index("num_frames")
    wide = table.set_column(place, pa.field("num_frames", pa.int64()), table.column("num_frames").cast(pa.int64()))
    pq.write_table(wide.replace_schema_metadata({METADATA_KEY: json.dumps(description)}), tmp_path / "old.parquet")
    opened = Manifest.open(tmp_path / "old.parquet", cache_dir=tmp_path)
    assert opened.table.schema == make().table.schema
    assert opened.segment(0) == make().segment(0)
    assert (opened.segment(0).keyframes, opened.stream_table(0)) == (None, None)
    assert opened.content_hash() == make().content_hash()
    newer = table.replace_schema_metadata({METADATA_KEY: json.dumps(description | {"version": 99})})
    pq.write_table(newer, tmp_path / "newer.parquet")
    with pytest.raises(InputError, match=r"version 1 or 2 \(it says 99\)"):
        Manifest.open(tmp_path / "newer.parquet", cache_dir=tmp_path)
    pq.write_table(make().table.drop_columns(["fps"]), tmp_path / "less.parquet")
    with pytest.raises(InputError, match=r"missing: \['fps'\]"):
        Manifest.open(tmp_path / "less.parquet", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("start", "end", "keyframes"),
    [(None, None, [0, 12, 24, 97]), (0.48, 1.0, [0, 12]), (0.52, None, [11, 84]), (1.0, 1.5, [])],
)
def test_keyframes_are_those_of_the_segment(start: float | None, end: float | None, keyframes: list[int]) -> None:
    record = {**RECORD, "keyframes": [0, 12, 24, 97], "start_seconds": start, "end_seconds": end}
    segment = make(record).segment(0)
    assert segment.keyframes is not None
    assert segment.keyframes.dtype == np.int32
    assert segment.keyframes.tolist() == keyframes
    assert make().segment(0).keyframes is None


STRETCHES: list[dict[str, Any]] = [
    {**RECORD, "start_seconds": start, "end_seconds": end, "segment_id": f"{start} {end} {fps}", "fps": fps}
    for start in (None, 0.0, 0.02, 1.0, 3.98, 99.0)
    for end in (None, 0.0, 1.02, 2.5, 99.0)
    for fps in (25.0, 29.97, None)
] + [{"path": "gone.mp4", "status": "missing"}]


def test_columns_say_the_same_as_rows() -> None:
    manifest = make(*STRETCHES)
    rows = range(len(manifest))
    assert manifest.frame_counts().tolist() == [manifest.segment(row).num_frames for row in rows]
    assert manifest.is_usable().tolist() == [value == "ok" for value in manifest.column("status")]
    assert [manifest.path(row) for row in rows] == manifest.column("path")


def test_videos_and_units_are_numbered(tmp_path: Path) -> None:
    records = [
        {"path": "b.mp4", "group": "g"},
        {"path": "a.mp4", "start_seconds": 0.0},
        {"path": "a.mp4", "start_seconds": 1.0},
        {"path": "ä.mp4", "group": "a"},
        {"path": "c.mp4", "group": "g"},
    ]
    made = Manifest.from_records(records, root=tmp_path)
    made.write(tmp_path / "manifest.parquet")
    opened = Manifest.open(tmp_path / "manifest.parquet", cache_dir=tmp_path)
    for manifest in (made, opened, pickle.loads(pickle.dumps(opened)), opened.mapped_anew()):
        assert manifest.video_numbers().tolist() == [0, 1, 1, 2, 3]
        assert manifest.units() == ["group g", "video a.mp4", "video a.mp4", "group a", "group g"]
        assert manifest.unit_ranks().tolist() == [1, 2, 2, 0, 1], "in the order of the names"


def test_a_copy_gives_all_columns_back_where_names_are_paths_and_where_not(tmp_path: Path) -> None:
    for number, changes in enumerate([{}, {"video_id": "v"}, {"video_id": "v", "segment_id": "s"}]):
        manifest = make({**RECORD, **changes})
        manifest.write(tmp_path / f"{number}.parquet")
        opened = Manifest.open(tmp_path / f"{number}.parquet", cache_dir=tmp_path)
        assert opened.table.schema.equals(manifest.table.schema)
        assert opened.table.schema.metadata == manifest.table.schema.metadata
        assert opened.table.equals(manifest.table)
        assert opened.segment(0) == manifest.segment(0)


def test_many_rows_are_looked_at_without_making_a_python_object_of_each(tmp_path: Path) -> None:
    """Workers copy what holds Python objects, by counting references; 100,000 texts would be 10 MB."""
    rows = 100_000
    table = make().table.take(np.zeros(rows, dtype=np.int64))
    names = pa.array([f"class/video_{row}.mp4" for row in range(rows)])
    for name in ("segment_id", "video_id"):
        table = table.set_column(table.column_names.index(name), table.schema.field(name), names)
    Manifest(table, root=tmp_path).write(tmp_path / "manifest.parquet")
    Manifest.open(tmp_path / "manifest.parquet", cache_dir=tmp_path)

    objects = 0
    tracemalloc.start()
    try:
        opened = Manifest.open(tmp_path / "manifest.parquet", cache_dir=tmp_path)
        arrays = [opened.video_numbers(), opened.frame_counts(), opened.is_usable(), *class_indices(opened, "label")]
        splits = split_rows(opened, label="label", test_fraction=0.3, split_seed=0, test_groups=None)
        opened.content_hash()
        held = sum(array.nbytes for array in [*arrays, *splits.values()] if isinstance(array, np.ndarray))
        statistics = tracemalloc.take_snapshot().statistics("lineno")
        objects = sum(one.count for one in statistics)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert objects < 2_000, "however many rows"
    assert held < 40 * rows
    assert peak < 80 * rows, "arrays of numbers, a few at a time"


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.mp4", "a/../../outside.mp4", "..", "."])
def test_no_path_leaves_the_root(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match="stay inside"):
        make({**RECORD, "path": path})
    # A manifest from elsewhere is checked when its files are asked for.
    table = make().table
    column = table.column_names.index("path")
    forged = table.set_column(column, table.schema.field("path"), pa.array([path]))
    pq.write_table(forged, tmp_path / "forged.parquet")
    with pytest.raises(InputError, match="stay inside"):
        Manifest.open(tmp_path / "forged.parquet", cache_dir=tmp_path).file(0)


def test_wrong_records_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown: \['lable'\]"):
        make({**RECORD, "lable": "walking"})
    with pytest.raises(InputError, match="must have a path"):
        make({"label": "walking"})
    with pytest.raises(InputError, match="split='training'"):
        make({**RECORD, "split": "training"})
    with pytest.raises(InputError, match="rename"):
        make(RECORD, labels=("codec",))


def test_wrong_names_and_rows_are_refused() -> None:
    with pytest.raises(InputError, match=r"'motion' must be one of .*\(label\)"):
        make().labels("motion")
    with pytest.raises(InputError, match="must be one of the manifest's"):
        make().column("motion")
    with pytest.raises(IndexError, match=r"row 1 .* 0\.\.0"):
        make().segment(1)


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ssl-video index"):
        Manifest.open(tmp_path / "missing.parquet", cache_dir=tmp_path)
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match="no Parquet file"):
        Manifest.open(tmp_path / "text.parquet", cache_dir=tmp_path)
    pq.write_table(pa.table({"path": ["a.mp4"]}), tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match="no manifest"):
        Manifest.open(tmp_path / "foreign.parquet", cache_dir=tmp_path)


def test_a_label_may_be_a_list_of_classes(tmp_path: Path) -> None:
    records = [{"path": "a.mp4", "actions": ["open", "sit"]}, {"path": "b.mp4", "actions": None}]
    manifest = Manifest.from_records(
        [record | {"label": "run"} for record in records], root=tmp_path, label_columns=["label", "actions"]
    )
    manifest.write(tmp_path / "manifest.parquet")
    opened = Manifest.open(tmp_path / "manifest.parquet", cache_dir=tmp_path / "cache")
    assert opened.labels("actions") == [["open", "sit"], None]
    assert (opened.is_multi_label("actions"), opened.is_multi_label("label")) == (True, False)
    assert opened.content_hash() == manifest.content_hash()
