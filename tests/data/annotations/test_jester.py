from pathlib import Path

import pytest

from ssl_video.data.annotations.jester import FRAMES_PER_SECOND, read_jester
from ssl_video.data.index import index_annotated
from ssl_video.utils.errors import InputError
from support.archives import make_jester, write


def test_the_official_layout_becomes_a_manifest(tmp_path: Path) -> None:
    root = make_jester(tmp_path, num_frames=3)
    manifest = index_annotated(root, read_jester(root), progress=False, images_fps=FRAMES_PER_SECOND)
    assert manifest.status_counts() == {"ok": 3}
    assert manifest.labels("label") == ["Drumming Fingers", "No gesture", "No gesture"]
    assert manifest.column("split") == ["train", "train", "val"]
    assert manifest.column("path")[0] == "20bn-jester-v1/34870"
    segment = manifest.segment(0)
    assert (segment.num_frames, segment.fps, segment.height) == (3, 12.0, 40)
    again = index_annotated(root, read_jester(root), progress=False, previous=manifest, images_fps=FRAMES_PER_SECOND)
    assert again.content_hash() == manifest.content_hash()


def test_folders_may_lie_in_the_root_and_the_test_part_has_no_labels(tmp_path: Path) -> None:
    root = make_jester(tmp_path / "data", num_frames=1)
    for name in ("34870", "56557", "9223"):
        (root / "20bn-jester-v1" / name).rename(root / name)
    (root / "20bn-jester-v1").rmdir()
    videos = read_jester(root, splits=["train", "test"])
    assert [(video.path, video.labels["label"]) for video in videos] == [
        ("34870", "Drumming Fingers"),
        ("56557", "No gesture"),
        ("56500", None),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5;Waving", "line 2: '5;Waving' must read <id>;<class>, a class of jester-v1-labels.csv"),
        ("5", "line 2: '5' must read <id>;<class>"),
        ("..;No gesture", r"line 2: '\.\.' must be a video's name"),
        ("a/b;No gesture", "line 2: 'a/b' must be a video's name"),
        ("34870;No gesture", "line 2: 20bn-jester-v1/34870 stands in .*line 1 already"),
    ],
)
def test_lines_at_fault_are_named(tmp_path: Path, line: str, message: str) -> None:
    root = make_jester(tmp_path, num_frames=1)
    write(root / "jester-v1-train.csv", f"34870;Drumming Fingers\n{line}\n")
    with pytest.raises(InputError, match=rf"jester-v1-train\.csv, {message}"):
        read_jester(root)


def test_missing_files_are_named(tmp_path: Path) -> None:
    root = make_jester(tmp_path, num_frames=1)
    (root / "jester-v1-validation.csv").write_text("\n")
    with pytest.raises(InputError, match=r"validation\.csv is empty"):
        read_jester(root)
    (root / "jester-v1-validation.csv").unlink()
    with pytest.raises(InputError, match=r"must hold jester-v1-validation\.csv"):
        read_jester(root)
