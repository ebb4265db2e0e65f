"""``ssl-video prepare``: from a manifest to files that training reads, in one go, in shards, after an interrupt."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_video.cli import index, main, motion, prepare
from ssl_video.cli.parts import PROVIDED, TrainSettings, build_checked
from ssl_video.data.manifest import Manifest
from ssl_video.data.prepared_folder import Outcome, shard_of
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.utils.config import compose_checked
from support.folders import labelled_folder, numbered_folder
from support.videos import read_frame_numbers, write_video

pytestmark = pytest.mark.usefixtures("own_folder")

SMALL = ("--short-side", "32", "--workers", "1")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_folder(tmp_path_factory.mktemp("numbered"), videos=6, size=80)


@pytest.fixture(scope="module")
def manifest(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("manifest") / "data.parquet"
    assert index.main([str(videos), "-o", str(path), "--num-workers", "1"]) == 0
    return path


def indexed(videos: Path, *words: str) -> str:
    assert index.main([str(videos), "-o", "data.parquet", "--num-workers", "1", *words]) == 0
    return "data.parquet"


def run(*words: str | Path) -> int:
    return main.main(["prepare", *map(str, words), *SMALL])


def frame_numbers(path: Path) -> list[int]:
    reader = PyAVReader(path)
    try:
        return read_frame_numbers(reader.read(range(reader.num_frames)))
    finally:
        reader.close()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_manifest_becomes_a_folder_and_a_manifest(
    videos: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(videos)
    assert run(manifest, "-o", "out") == 0
    told = capsys.readouterr().out
    assert "6 files prepared" in told
    assert "MB before" in told and "MB after" in told
    assert "python train.py dataset=manifest dataset.source.file=out/manifest.parquet" in told
    made = Manifest.open(Path("out/manifest.parquet"))
    assert made.status_counts() == {"ok": 6}
    for row in range(6):
        segment = made.segment(row)
        assert (segment.height, segment.width) == (32, 32)
        assert frame_numbers(made.file(row)) == list(range(30 + row % 3))
    assert content(videos) == before
    assert not list(Path("out").rglob("*.partial"))


@pytest.mark.slow
def test_doing_it_again_changes_nothing_and_a_replaced_source_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = numbered_folder(tmp_path / "own", videos=3)
    assert run(indexed(videos), "-o", "out") == 0
    first = content(tmp_path / "out")
    capsys.readouterr()
    assert run("data.parquet", "-o", "out") == 0
    assert "0 files prepared" in (told := capsys.readouterr().out) and "3 were there" in told
    assert content(tmp_path / "out") == first
    write_video(videos / "video_01.mp4", num_frames=44, height=40, width=40)
    later = (videos / "video_01.mp4").stat().st_mtime_ns + 10**10
    os.utime(videos / "video_01.mp4", ns=(later, later))
    write_video(videos / "video_99.mp4", num_frames=20, height=40, width=40)
    assert run(indexed(videos), "-o", "out") == 0
    assert "2 files prepared" in (told := capsys.readouterr().out) and "2 were there" in told
    assert Manifest.open(Path("out/manifest.parquet")).column("num_frames") == [30, 44, 32, 20]


@pytest.mark.slow
def test_files_that_fail_are_named_and_in_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = numbered_folder(tmp_path / "own", videos=3)
    (videos / "was_broken.mp4").write_bytes(b"no video")
    manifest = indexed(videos)
    whole = (videos / "video_01.mp4").read_bytes()
    (videos / "video_01.mp4").write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert run(manifest, "-o", "out") == 1
    printed = capsys.readouterr()
    assert "2 files prepared" in printed.out and "1 failed" in printed.out
    assert "'video_01.mp4': has" in printed.err and "when it was indexed" in printed.err
    assert "was_broken" not in printed.err  # it was known
    made = Manifest.open(Path("out/manifest.parquet"))
    assert made.column("status") == ["ok", "unreadable", "ok", "unreadable"]
    assert str(made.column("reason")[1]).startswith("could not be prepared: has")
    assert made.column("reason")[3] == "cannot be opened: Invalid data found when processing input"
    (videos / "video_01.mp4").write_bytes(whole)
    assert run(manifest, "-o", "out") == 0
    assert Manifest.open(Path("out/manifest.parquet")).column("status")[:3] == ["ok"] * 3


def test_where_nothing_can_be_made_there_is_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = numbered_folder(tmp_path / "own", videos=1)
    manifest = indexed(videos)
    (videos / "video_00.mp4").unlink()
    assert run(manifest, "-o", "out") == 1
    assert "no file could be prepared" in capsys.readouterr().err
    assert not Path("out/manifest.parquet").exists()


@pytest.mark.slow
def test_three_shards_and_a_last_call_are_as_one(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(manifest, "-o", "one") == 0
    names = [path.name for path in Path("one").glob("*.mp4")]
    for shard in (2, 0, 1):
        assert run(manifest, "-o", "shards", "--shards", "3", "--shard", str(shard)) == 0
        assert f"Shard {shard} of 3 is done" in capsys.readouterr().out
        assert not Path("shards/manifest.parquet").exists()
    there = {path.name: path.stat().st_mtime_ns for path in Path("shards").glob("*.mp4")}
    assert sorted(there) == sorted(names)
    assert len({shard_of(name, 3) for name in names}) > 1
    for _ in range(2):
        assert run(manifest, "-o", "shards") == 0
        assert "0 files prepared" in (told := capsys.readouterr().out) and "6 were there" in told
        assert content(Path("shards")) == content(Path("one"))


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_done(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = prepare.prepare_all

    def two_then_interrupt(*arguments: Any, **settings: Any) -> Iterator[Outcome]:
        for number, outcome in enumerate(make(*arguments, **settings)):
            if number == 2:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(prepare, "prepare_all", two_then_interrupt)
    assert run(manifest, "-o", "out") == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(prepare, "prepare_all", make)
    there = len(list(Path("out").glob("video*.mp4")))
    assert 2 <= there <= 6
    (Path("out") / ".0123456789abcdef.0123.partial").write_bytes(b"left by a kill")
    assert run(manifest, "-o", "out") == 0
    assert f"{6 - there} files prepared" in capsys.readouterr().out
    assert not list(Path("out").rglob("*.partial"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one manifest (ssl-video prepare manifest.parquet)"),
        (["nowhere.parquet"], "manifest nowhere.parquet cannot be read"),
        (["{manifest}", "--short-side", "33"], "must be even"),
        (["{manifest}", "--shards", "3"], "--shards N and --shard I go together"),
        (["{manifest}", "--shard", "1"], "--shards N and --shard I go together"),
        (["{manifest}", "--shards", "3", "--shard", "3"], "must be in 0..2"),
        (["dataset=folder"], "dataset=folder needs dataset.root=DIR"),
    ],
)
def test_wrong_input_is_refused_with_2(
    manifest: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare.main([*(word.format(manifest=manifest) for word in words), "-o", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.slow
def test_folders_that_are_not_its_own_are_refused(
    videos: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear all")
    assert run(manifest, "-o", "mine") == 2
    assert "holds other files" in capsys.readouterr().err
    assert run(manifest, "-o", videos / "small") == 2
    assert "which is only read" in capsys.readouterr().err
    assert run(manifest, "-o", "out") == 0
    assert run(manifest, "-o", "out", "--keyframe-every", "8") == 2
    assert "keyframe_every: 16 there, 8 asked" in capsys.readouterr().err


@pytest.mark.slow
def test_unreadable_data_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.mp4").write_bytes(b"no video")
    assert run(indexed(tmp_path / "own"), "-o", "out") == 2
    assert "there is nothing to prepare" in capsys.readouterr().err


@pytest.mark.slow
def test_another_rate(manifest: Path) -> None:
    assert run(manifest, "-o", "out", "--fps", "12.5") == 0
    made = Manifest.open(Path("out/manifest.parquet"))
    assert set(made.column("fps")) == {12.5}
    assert frame_numbers(made.file(0)) == list(range(0, 30, 2))


# --- what training makes of it ----------------------------------------------------------------------------------------


def config(*words: str) -> Any:
    given = ["dataset=manifest", "dataset.source.file=out/manifest.parquet", "batch_size=4", "dataset.num_workers=0"]
    return compose_checked("train", [*given, *words], provided=PROVIDED, settings=TrainSettings)


@pytest.mark.slow
def test_training_takes_the_manifest_with_its_labels(tmp_path: Path) -> None:
    videos = labelled_folder(tmp_path / "own", videos=8)
    assert run(indexed(videos, "--labels", str(videos / "labels.csv")), "-o", "out") == 0
    shutil.rmtree(videos)
    _, datamodule = build_checked(config("method=moco"))
    assert datamodule.class_names == ["bright", "dark"]
    batch = next(iter(datamodule.training_loader(1)))
    assert batch.clips.shape[0] == 4
    assert datamodule.manifest.parquet_file == Path("out/manifest.parquet")


@pytest.mark.slow
def test_motion_tables_are_made_along_and_found_by_training(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(manifest, "-o", "out", "--motion", "frame_difference") == 0
    assert json.loads(Path("out/manifest.motion/settings.json").read_text())["flow"] == "frame_difference"
    capsys.readouterr()
    assert motion.main(["out/manifest.parquet", "--flow", "frame_difference", "--workers", "0"]) == 0
    assert "0 motion tables written, 6 were there" in capsys.readouterr().out
    _, datamodule = build_checked(config("method=shuffle_and_learn"))
    assert datamodule.check_motion() is None
    along = {path.name: dict(np.load(path)) for path in Path("out/manifest.motion").glob("*.npz")}
    assert motion.main(["out/manifest.parquet", "--flow", "frame_difference", "--workers", "0", "--overwrite"]) == 0
    for path in Path("out/manifest.motion").glob("*.npz"):
        alone = dict(np.load(path))
        # Grey levels: the copy is compressed, the tables made along are of the source's pixels.
        assert np.abs(alone["magnitude"] - along[path.name]["magnitude"]).mean() < 0.1 * alone["magnitude"].mean()


@pytest.mark.slow
def test_a_named_data_set_can_be_prepared(videos: Path, tmp_path: Path) -> None:
    words = ["dataset=folder", f"dataset.root={videos}", f"cache_dir={tmp_path / 'cache'}"]
    assert run(*words, "-o", "out") == 0
    assert len(Manifest.open(Path("out/manifest.parquet"))) == 6
