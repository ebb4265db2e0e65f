"""Motion tables: files that are whole or not there, of one kind, and fixed for a run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssl_video.data.motion import (
    Motion,
    MotionSettings,
    MotionTables,
    motion_folder,
    read_motion,
    table_file_bytes,
    table_name,
    use_settings,
    write_motion,
)
from ssl_video.utils.errors import InputError
from support.segments import segment


def motion(length: int = 5) -> Motion:
    rng = np.random.default_rng(length)
    return Motion(
        rng.random(length, dtype=np.float32),
        rng.random((length, 3, 4)).astype(np.float16),
        rng.integers(0, 256, (length, 64, 64), dtype=np.uint8),
    )


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder, written = tmp_path / "new" / "data.motion", motion()
    write_motion(folder, segment(5), written, file_bytes=17)
    read = read_motion(folder, segment(5))
    assert read is not None
    for name in ("magnitude", "grid", "thumbnails"):
        assert np.array_equal(getattr(read, name), getattr(written, name))
        assert getattr(read, name).dtype == getattr(written, name).dtype
    assert table_file_bytes(folder, segment(5)) == 17
    assert [path.name for path in folder.iterdir()] == [table_name(segment(5))]


def test_a_missing_table_is_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_motion(tmp_path, segment(5)) is None
    assert table_file_bytes(tmp_path, segment(5)) is None
    write_motion(tmp_path, segment(5), motion())
    path = tmp_path / table_name(segment(5))
    for damaged in (path.read_bytes()[:1000], b"", b"something else"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"motion table .* cannot be read .* delete it and run `ssl-video motion`"):
            read_motion(tmp_path, segment(5))
        assert table_file_bytes(tmp_path, segment(5)) is None


def test_each_stretch_has_a_file_name_of_its_own_that_every_system_takes() -> None:
    one = replace(segment(5), path="a folder/ünsafe: <name>?.mp4")
    others = [
        replace(one, segment_id="b"),
        replace(one, path="another folder/ünsafe: <name>?.mp4"),
        replace(one, first_frame=3),
        replace(one, num_frames=6),
        replace(one, path="x" * 300 + ".mp4"),
        replace(one, path=".hidden"),
    ]
    names = {table_name(own) for own in (one, *others)}
    assert len(names) == 7
    assert all(len(name) < 80 and not set(name) & set('/\\:<>?*"| ') and not name.startswith(".") for name in names)
    assert table_name(replace(one, row=9, fps=1.0)) == table_name(one)


def test_tables_of_unequal_length_are_refused() -> None:
    whole = motion()
    with pytest.raises(ValueError, match="of the same ones"):
        Motion(whole.magnitude[:4], whole.grid, whole.thumbnails)
    with pytest.raises(ValueError, match=r"must be \[L\], \[L, gh, gw\]"):
        Motion(whole.magnitude, whole.grid[:, 0], whole.thumbnails)


def test_a_segment_with_a_table_equals_one_without() -> None:
    assert replace(segment(5), motion=motion()) == segment(5)
    assert hash(replace(segment(5), motion=motion())) == hash(segment(5))


def test_a_run_sees_the_tables_that_were_there_when_it_began(tmp_path: Path) -> None:
    write_motion(tmp_path, segment(5), motion())
    tables = MotionTables(tmp_path)
    write_motion(tmp_path, segment(6), motion(6))
    assert segment(5) in tables
    assert tables.read(segment(5)) is not None
    assert segment(6) not in tables
    assert tables.read(segment(6)) is None
    (tmp_path / table_name(segment(5))).unlink()
    with pytest.raises(InputError, match="was there when the run began and is gone"):
        tables.read(segment(5))


def test_no_folder_has_no_tables(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "nowhere"):
        tables = MotionTables(folder)
        assert segment(5) not in tables
        assert tables.read(segment(5)) is None
        assert tables.fingerprint() == ""


def test_the_fingerprint_changes_with_the_tables_and_their_kind(tmp_path: Path) -> None:
    use_settings(tmp_path, MotionSettings())
    write_motion(tmp_path, segment(5), motion())
    first = MotionTables(tmp_path).fingerprint()
    assert first == MotionTables(tmp_path).fingerprint() != ""
    write_motion(tmp_path, segment(6), motion(6))
    second = MotionTables(tmp_path).fingerprint()
    (tmp_path / table_name(segment(6))).unlink()
    settings = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(settings | {"flow": "raft"}))
    assert len({first, second, MotionTables(tmp_path).fingerprint()}) == 3


def test_tables_of_another_kind_are_refused_or_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "data.motion"
    use_settings(folder, MotionSettings())
    write_motion(folder, segment(5), motion())
    use_settings(folder, MotionSettings())
    with pytest.raises(InputError, match=r"flow: farneback there, frame_difference asked.*--overwrite"):
        use_settings(folder, MotionSettings(flow="frame_difference"))
    assert segment(5) in MotionTables(folder)
    use_settings(folder, MotionSettings(flow="frame_difference"), overwrite=True)
    assert segment(5) not in MotionTables(folder)
    described = json.loads((folder / "settings.json").read_text())
    assert described["flow"] == "frame_difference"
    assert described["unit"] == "grey levels"
    (folder / "settings.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        use_settings(folder, MotionSettings())


@pytest.mark.parametrize(
    ("height", "width", "flow_size", "grid_size"),
    [
        (240, 320, (60, 80), (16, 21)),
        (64, 64, (64, 64), (16, 16)),
        (48, 40, (48, 40), (19, 16)),
        (80, 100, (51, 64), (16, 20)),
        (1080, 1920, (270, 480), (16, 28)),
        (8, 12, (8, 12), (8, 12)),
    ],
)
def test_sizes(height: int, width: int, flow_size: tuple[int, int], grid_size: tuple[int, int]) -> None:
    settings = MotionSettings()
    assert settings.flow_size(height, width) == flow_size
    assert settings.grid_size(*flow_size) == grid_size


def test_a_share_outside_its_range_is_refused() -> None:
    for share in (0.0, -1.0, 1.5):
        with pytest.raises(InputError, match=f"downscale={share}"):
            MotionSettings(downscale=share)


def test_the_folder_lies_beside_the_manifest() -> None:
    assert motion_folder(Path("cache/data.parquet")) == Path("cache/data.motion")
