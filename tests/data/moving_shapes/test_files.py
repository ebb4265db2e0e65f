"""The files of the embedded data set, their determinism, and its labels."""

import csv
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.stats import chi2_contingency

from ssl_video.data.moving_shapes import files
from ssl_video.data.moving_shapes.files import make_moving_shapes, plan
from ssl_video.data.moving_shapes.motions import MOTIONS
from ssl_video.data.moving_shapes.rendering import render_video
from ssl_video.data.moving_shapes.scene import SceneSettings
from ssl_video.data.moving_shapes.textures import APPEARANCES
from ssl_video.utils.errors import InputError

SMALL = SceneSettings(size=32, num_frames=14, object_scale=0.8)


def _decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _labels(root: Path) -> list[dict[str, str]]:
    with (root / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    make_moving_shapes(root, settings=SMALL, num_videos=8, num_workers=1, seed=3)
    return root


def test_files_and_table(small: Path) -> None:
    rows = _labels(small)
    assert list(rows[0]) == ["path", "motion", "appearance", "split", "group"]
    assert len(rows) == 8 and len({row["group"] for row in rows}) == 8
    assert sorted(path.name for path in small.iterdir()) == ["annotations", "labels.csv", "videos"]
    for row in rows:
        frames = _decode(small / row["path"])
        assert frames.shape == (14, 32, 32, 3)
        with np.load(small / "annotations" / f"{Path(row['path']).stem}.npz") as notes:
            assert notes["masks"].shape == (14, 32, 32) and notes["masks"].dtype == bool
            assert notes["boxes"].shape == (14, 4) and notes["keypoints"].shape == (14, 5, 3)


def test_files_are_h264_without_reordering_and_near_the_drawn_frames(small: Path) -> None:
    row = _labels(small)[0]
    with av.open(str(small / row["path"])) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and float(stream.average_rate) == 25.0
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert all(packet.pts == packet.dts for packet in packets)
        assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 12]
    drawn = render_video(
        row["motion"],
        row["appearance"],
        settings=SMALL,
        video_seed=(3, 3, int(Path(row["path"]).stem)),
        bank_seed=3,
    )
    luminance = np.array([0.299, 0.587, 0.114])  # the codec halves the colours' resolution, not the luminance's
    decoded, original = _decode(small / row["path"]) @ luminance, drawn.frames @ luminance
    assert np.abs(decoded - original).mean() < 6.0
    assert np.abs(decoded[1:] - original[:-1]).mean() > np.abs(decoded - original).mean()


@pytest.mark.slow
def test_equal_arguments_give_equal_files_with_any_number_of_processes(tmp_path: Path) -> None:
    settings = SceneSettings(size=32, num_frames=8)
    for name, workers in (("one", 1), ("two", 2)):
        make_moving_shapes(tmp_path / name, settings=settings, num_videos=10, num_workers=workers, seed=1)
    make_moving_shapes(tmp_path / "other", settings=settings, num_videos=10, num_workers=1, seed=2)
    one, two, other = (_labels(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    for row in one:
        assert (tmp_path / "one" / row["path"]).read_bytes() == (tmp_path / "two" / row["path"]).read_bytes()
    assert not np.array_equal(
        _decode(tmp_path / "one" / one[0]["path"]), _decode(tmp_path / "other" / other[0]["path"])
    )


def test_macroblock_tree_is_off(small: Path) -> None:
    # Its AVX-512 code reads past its arrays, so that one file in hundreds would differ: too few for the test above.
    for row in _labels(small):
        assert b" mbtree=0 " in (small / row["path"]).read_bytes()  # x264 writes its settings into the stream


def test_complete_folder_is_left_alone_and_a_foreign_one_refused(small: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    make_moving_shapes(small, settings=SMALL, num_videos=8, num_workers=1, seed=3)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"own holds other files.*dataset=folder"):
        make_moving_shapes(tmp_path / "own", num_videos=1)
    assert (tmp_path / "own" / "thesis.txt").read_text() == "mine"


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files, "write_mp4", fail)
    with pytest.raises(OSError, match="disk full"):
        make_moving_shapes(
            tmp_path / "shapes", settings=SceneSettings(size=32, num_frames=4), num_videos=2, num_workers=1
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"motions": ["steady", "flying"]}, "flying"),
        ({"motions": []}, r"motions=\[\]"),
        ({"num_videos": 0}, "num_videos=0 must be at least 1"),
        ({"test_fraction": 1.0}, "test_fraction=1.0"),
        ({"settings": SceneSettings(size=33)}, "size=33 must be even"),
        ({"settings": SceneSettings(num_frames=0)}, "num_frames=0"),
        ({"settings": SceneSettings(object_scale=0.0)}, "object_scale=0.0"),
        ({"settings": SceneSettings(textures_per_appearance=0)}, "textures_per_appearance=0"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_moving_shapes(tmp_path / "shapes", **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_videos", [600, 250])
def test_labels_and_split_are_independent(num_videos: int) -> None:
    rows = plan(num_videos=num_videos)
    cells = Counter((row.motion, row.appearance) for row in rows)
    assert len(cells) == len(MOTIONS) * len(APPEARANCES) and max(cells.values()) - min(cells.values()) <= 1
    assert sum(row.split == "test" for row in rows) == num_videos // 200 * 40
    for split in ("train", "test"):
        part = [row for row in rows if row.split == split]
        table = np.array(
            [[sum(r.motion == m and r.appearance == a for r in part) for a in APPEARANCES] for m in MOTIONS]
        )
        assert table.max() - table.min() <= 1
        assert chi2_contingency(table).pvalue > 0.99
    assert rows == plan(num_videos=num_videos) != plan(num_videos=num_videos, seed=1)


def test_few_videos_have_a_test_part_too() -> None:
    """Fewer than balance every pair of labels are split video by video."""
    rows = plan(num_videos=80)
    assert sum(row.split == "test" for row in rows) == 16
