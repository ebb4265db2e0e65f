"""Features of any folder of videos in one file, through the command."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from ssl_video.cli.main import main
from support.folders import labelled_folder, numbered_folder

pytestmark = pytest.mark.usefixtures("own_folder")

Printed = pytest.CaptureFixture[str]

NET = (
    *("checkpoint=random", "backbone=r3d_tiny", "num_frames=4", "input_transform.resize=32"),
    *("input_transform.crop=32", "dataset.num_workers=0", "dataset=folder", "cache_dir=cache"),
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos that have no labels."""
    return numbered_folder(tmp_path_factory.mktemp("numbered"), videos=6)


def embed(root: Path, output: str, *words: str) -> int:
    return main(["embed", *NET, f"dataset.root={root}", "-o", output, *words])


def table(output: str) -> dict[str, list[Any]]:
    content: dict[str, list[Any]] = pq.read_table(output).to_pydict()
    return content


def tensors(output: str) -> tuple[torch.Tensor, dict[str, Any]]:
    with safe_open(output, framework="pt") as file:
        metadata = file.metadata()
        return file.get_tensor("features"), {name: json.loads(text) for name, text in metadata.items()}


def test_a_table_of_videos_without_labels(videos: Path, capsys: Printed) -> None:
    assert embed(videos, "features.parquet") == 0
    schema = pq.read_schema("features.parquet")
    assert [str(field.type) for field in schema] == ["string"] * 4 + ["fixed_size_list<element: float>[96]"]
    content = table("features.parquet")
    names = [f"video_{number:02d}.mp4" for number in range(6)]
    assert content["video_id"] == content["path"] == content["segment_id"] == names
    assert content["label"] == [None] * 6
    assert "written: features.parquet (6 videos, 96 features of each; 0 unreadable)" in capsys.readouterr().out
    text = str(schema.metadata)
    assert str(videos) not in text and str(Path.cwd()) not in text
    description = json.loads((schema.metadata or {})[b"ssl_video"])
    assert description["checkpoint"] == "random seed:0"
    assert {key: description[key] for key in ("dataset", "split", "level", "num_clips", "num_frames")} == {
        "dataset": "folder",
        "split": "all",
        "level": "video",
        "num_clips": 5,
        "num_frames": 4,
    }


def test_both_formats_and_levels_hold_the_same(videos: Path) -> None:
    for level in ("video", "clip"):
        for ending in ("parquet", "safetensors"):
            assert embed(videos, f"{level}.{ending}", "--level", level, "--num-clips", "3") == 0
    by_video, metadata = tensors("video.safetensors")
    by_clip, _ = tensors("clip.safetensors")
    assert (by_video.shape, by_clip.shape) == ((6, 96), (6, 3, 96))
    assert by_clip.double().mean(dim=1).float().equal(by_video)
    assert metadata["video_ids"] == [f"video_{number:02d}.mp4" for number in range(6)]
    assert metadata["labels"] == [None] * 6
    assert metadata["description"]["num_clips"] == 3
    clips = table("clip.parquet")
    assert clips["video_id"] == [f"video_{number:02d}.mp4" for number in range(6) for _ in range(3)]
    assert clips["clip"] == [0, 1, 2] * 6
    np.testing.assert_array_equal(np.array(clips["features"], dtype=np.float32), by_clip.flatten(0, 1).numpy())
    np.testing.assert_array_equal(np.array(table("video.parquet")["features"], dtype=np.float32), by_video.numpy())


@pytest.mark.slow
def test_videos_differ_and_seeds_do(videos: Path) -> None:
    """The control: equal words give equal bytes, another net gives other features."""
    for name, words in {"a": [], "b": ["feature_cache=false"], "c": ["seed=1"]}.items():
        assert embed(videos, f"{name}.parquet", *words) == 0
    assert Path("a.parquet").read_bytes() == Path("b.parquet").read_bytes()
    a, c = (np.array(table(f"{name}.parquet")["features"]) for name in "ac")
    assert not np.allclose(a, c)
    assert len(np.unique(a, axis=0)) == 3, "they show their frame numbers, and have three lengths"


@pytest.mark.slow
def test_labels_come_along_and_a_split_can_be_chosen(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "labelled", videos=8)
    labels = f"dataset.labels={root / 'labels.csv'}"
    assert embed(root, "all.parquet", labels) == 0
    assert table("all.parquet")["label"] == ["dark", "bright"] * 4
    assert embed(root, "test.parquet", labels, "--split", "test") == 0
    assert embed(root, "train.parquet", labels, "--split", "train") == 0
    parts = [table(f"{name}.parquet")["path"] for name in ("test", "train")]
    assert all(parts)
    assert sorted(parts[0] + parts[1]) == table("all.parquet")["path"]


def test_unreadable_videos_are_named_and_counted(videos: Path, capsys: Printed) -> None:
    """One of three that is no video when it is indexed, one that breaks afterwards."""
    shutil.copytree(videos, "own")
    root = Path("own").absolute()
    for number in (0, 4, 5):
        (root / f"video_{number:02d}.mp4").unlink()
    (root / "video_01.mp4").write_bytes(b"no video" * 100)
    assert embed(root, "before.parquet") == 0
    file = root / "video_03.mp4"
    stat = file.stat()
    file.write_bytes(bytes(stat.st_size))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    capsys.readouterr()
    assert embed(root, "after.parquet", "feature_cache=false") == 0
    printed = capsys.readouterr()
    assert "2 videos cannot be read and are left out" in printed.err
    assert "  video_01.mp4: unreadable (" in printed.err
    assert "  video_03.mp4: " in printed.err
    assert "(1 videos, 96 features of each; 2 unreadable)" in printed.out
    assert table("before.parquet")["path"] == ["video_02.mp4", "video_03.mp4"]
    assert table("after.parquet")["path"] == ["video_02.mp4"]


def test_many_unreadable_videos_are_not_all_named(tmp_path: Path, videos: Path, capsys: Printed) -> None:
    root = tmp_path / "own"
    root.mkdir()
    shutil.copy(videos / "video_00.mp4", root)
    for number in range(25):
        (root / f"bad_{number}.mp4").write_bytes(b"no video")
    assert embed(root, "a.parquet") == 0
    printed = capsys.readouterr().err
    assert "25 videos cannot be read" in printed
    assert "and 5 more" in printed


def test_no_readable_video_is_refused(tmp_path: Path, capsys: Printed) -> None:
    root = tmp_path / "own"
    root.mkdir()
    (root / "bad.mp4").write_bytes(b"no video")
    assert embed(root, "a.parquet") == 2
    assert "none of the 1 videos can be read" in capsys.readouterr().err
    assert not Path("a.parquet").exists()


def refused(capsys: Printed, *words: str) -> str:
    capsys.readouterr()
    assert main(["embed", *words]) == 2
    return capsys.readouterr().err


def test_a_file_that_is_there_stays(videos: Path, capsys: Printed) -> None:
    Path("a.parquet").write_text("mine")
    message = refused(capsys, *NET, f"dataset.root={videos}", "-o", "a.parquet")
    assert "--output=a.parquet is there already; name another file" in message
    assert Path("a.parquet").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-o", "a.csv"], "--output=a.csv must end in .parquet or .safetensors"),
        (["-o", "a.parquet", "--num-clips", "0"], "--num-clips=0 must be at least 1"),
        (["-o", "a.parquet", "level"], "'level' is neither an option nor an override"),
        (["-o", "a.parquet", "batchsize=3"], "there is no key 'batchsize'; did you mean 'batch_size'?"),
        (["-o", "a.parquet", "--split", "val"], "--split=val has no videos in folder; train have, or use all"),
    ],
)
def test_faults_of_the_command_line_are_told(videos: Path, capsys: Printed, words: list[str], expected: str) -> None:
    message = refused(capsys, *NET, f"dataset.root={videos}", *words)
    assert message.startswith("ssl-video embed: ")
    assert expected in message


def test_a_folder_that_cannot_be_written_is_told(videos: Path, capsys: Printed) -> None:
    Path("file").write_text("")
    message = refused(capsys, *NET, f"dataset.root={videos}", "-o", "file/a.parquet")
    assert "--output=file/a.parquet cannot be written" in message


def test_an_interrupt_writes_nothing(videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    def interrupted(*words: Any, **rest: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssl_video.cli.embed.extract_rows", interrupted)
    assert embed(videos, "a.parquet") == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not Path("a.parquet").exists()
