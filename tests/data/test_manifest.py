import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_video.data.manifest import Manifest, Segment
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


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.mp4", "a/../../outside.mp4", ".."])
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
