"""A file's table of frames goes through a manifest's columns and comes back the same, or is said to be unknown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_video.data.index import index_folder
from ssl_video.data.manifest import Manifest
from ssl_video.data.readers.stream import StreamTable, scan
from ssl_video.data.stream_columns import STREAM_COLUMNS, restored_table, stream_columns
from support import videos

TABLE = StreamTable(
    stream_index=1,
    codec="h264",
    width=320,
    height=240,
    fps=25.0,
    times=np.arange(100, dtype=np.int64) * 512 + 1024,
    num_frames=100,
    keyframes=np.array([0, 12, 24, 97], dtype=np.int64),
    is_plain=True,
)
DESCRIBED = {"codec": "h264", "num_frames": 100, "fps": 25.0, "width": 320, "height": 240, "rotation": 0}


def assert_same(one: StreamTable | None, other: StreamTable) -> None:
    assert one is not None
    for name in ("stream_index", "codec", "width", "height", "fps", "num_frames", "is_plain"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("times", "keyframes"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype == np.int64


@pytest.mark.parametrize(
    ("times", "step"),
    [
        (np.arange(100) * 512 + 1024, 512.0),
        (np.arange(100) * 3003 - 6006, 3003.0),
        (np.floor(np.arange(100) * 1000 / 12 + 0.5), 1000 / 12),  # Matroska: milliseconds
        (np.floor(np.arange(100) * 1001 / 30 + 0.5) + 7, 1001 / 30),
        (np.arange(1) + 5, 1.0),
        (np.empty(0), 0.0),  # the file has no times to go by
    ],
)
def test_regular_times_come_back(times: Any, step: float) -> None:
    number = len(times) or 100
    table = replace(TABLE, times=times.astype(np.int64), num_frames=number, keyframes=np.zeros(1, dtype=np.int64))
    described = {**DESCRIBED, "num_frames": number}
    columns = stream_columns(table, described)
    assert columns["pts_step"] == pytest.approx(step, rel=1e-4)
    assert_same(restored_table({**described, **columns}, keyframes=np.array(columns["keyframes"])), table)


def test_irregular_times_are_not_made_up() -> None:
    times = TABLE.times.copy()
    times[50:] += 2  # one would be a rounded time
    assert stream_columns(replace(TABLE, times=times), DESCRIBED) == {"keyframes": [0, 12, 24, 97]}
    doubled = np.concatenate([np.arange(50), np.arange(50) * 2 + 50])
    assert set(stream_columns(replace(TABLE, times=doubled), DESCRIBED)) == {"keyframes"}


def test_what_the_other_columns_contradict_is_not_kept() -> None:
    """A container may declare another size than its frames have."""
    assert set(stream_columns(TABLE, {**DESCRIBED, "width": 322})) == {"keyframes"}
    turned = {**DESCRIBED, "width": 240, "height": 320, "rotation": 90}
    assert_same(restored_table({**turned, **stream_columns(TABLE, turned)}, keyframes=TABLE.keyframes), TABLE)


@pytest.mark.parametrize("name", [*STREAM_COLUMNS, "codec", "rotation"])
def test_no_table_where_a_column_is_null(name: str) -> None:
    columns = {**DESCRIBED, **stream_columns(TABLE, DESCRIBED), name: None}
    keyframes = None if columns["keyframes"] is None else TABLE.keyframes
    assert restored_table(columns, keyframes=keyframes) is None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streams")
    videos.write_video(root / "a.mp4", num_frames=30)
    videos.write_video(root / "b.mkv", num_frames=29, fps=12)
    videos.write_video(root / "c.avi", num_frames=17)
    videos.turn(videos.write_video(root / "d.mp4", num_frames=7), 90)
    return root


def test_tables_of_files_are_those_of_their_packets(root: Path, tmp_path: Path) -> None:
    index_folder(root, progress=False).write(tmp_path / "manifest.parquet")
    manifest = Manifest.open(tmp_path / "manifest.parquet", cache_dir=tmp_path)
    for row in range(len(manifest)):
        table, scanned = manifest.stream_table(row), scan(manifest.file(row))
        assert_same(table, scanned)
        keyframes = manifest.segment(row).keyframes
        assert keyframes is not None
        assert keyframes.tolist() == scanned.keyframes.tolist()


def test_a_file_of_another_size_has_no_table(tmp_path: Path) -> None:
    path = videos.write_video(tmp_path / "a.mp4", num_frames=30)
    manifest = index_folder(tmp_path, progress=False)
    assert manifest.stream_table(0) is not None
    videos.write_video(path, num_frames=31)
    assert manifest.stream_table(0) is None
    path.unlink()
    assert manifest.stream_table(0) is None


@pytest.mark.shared_data
def test_tables_of_odd_files_are_those_of_their_packets_or_unknown(shared_data: Path) -> None:
    manifest = index_folder(shared_data / "odd_media", progress=False)
    known = 0
    for row in range(len(manifest)):
        table = manifest.stream_table(row)
        if table is not None:
            known += 1
            assert_same(table, scan(manifest.file(row)))
    assert known >= 10
