"""Motion tables from the command line: written once, gone on with, and found by training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_video.cli import index, motion, train
from ssl_video.cli.parts import PROVIDED, TrainSettings, build_checked
from ssl_video.data.manifest import Manifest
from ssl_video.data.motion import MotionTables, motion_folder
from ssl_video.utils.config import compose_checked
from ssl_video.utils.errors import InputError
from support.folders import numbered_folder
from support.videos import write_video

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_folder(tmp_path_factory.mktemp("numbered"), videos=6)


def indexed(videos: Path, tmp_path: Path) -> Path:
    output = tmp_path / "data.parquet"
    assert index.main([str(videos), "-o", str(output), "--num-workers", "1"]) == 0
    return output


def run(*words: str | Path) -> int:
    return motion.main([*map(str, words), "--flow", "frame_difference", "--workers", "0"])


def test_every_video_of_a_manifest_gets_its_table(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = indexed(videos, tmp_path)
    assert run(manifest) == 0
    assert "6 motion tables written, 0 were there" in capsys.readouterr().out
    tables, opened = MotionTables(tmp_path / "data.motion"), Manifest.open(manifest)
    for row in range(6):
        table = tables.read(opened.segment(row))
        assert table is not None
        assert len(table.magnitude) == opened.segment(row).num_frames
        assert table.magnitude.min() > 0
    assert json.loads((tmp_path / "data.motion" / "settings.json").read_text())["flow"] == "frame_difference"


@pytest.mark.slow
def test_workers_write_the_same_tables(videos: Path, tmp_path: Path) -> None:
    manifest = indexed(videos, tmp_path)
    assert run(manifest) == 0
    alone = {path.name: dict(np.load(path)) for path in (tmp_path / "data.motion").glob("*.npz")}
    assert motion.main([str(manifest), "--flow", "frame_difference", "--workers", "2", "--overwrite"]) == 0
    together = {path.name: dict(np.load(path)) for path in (tmp_path / "data.motion").glob("*.npz")}
    assert set(alone) == set(together)
    assert all(np.array_equal(alone[name][key], together[name][key]) for name in alone for key in alone[name])


def test_what_is_done_is_not_done_again(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = indexed(videos, tmp_path)
    assert run(manifest) == 0
    tables = sorted((tmp_path / "data.motion").glob("*.npz"))
    tables[0].unlink()
    tables[1].write_bytes(b"half a tab")
    times = {table: table.stat().st_mtime_ns for table in tables[2:]}
    capsys.readouterr()
    assert run(manifest) == 0
    assert "2 motion tables written, 4 were there" in capsys.readouterr().out
    assert all(table.stat().st_mtime_ns == time for table, time in times.items())


@pytest.mark.slow
def test_a_replaced_video_gets_a_new_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = numbered_folder(tmp_path / "own", videos=2)
    manifest = indexed(videos, tmp_path)
    assert run(manifest) == 0
    still = np.full((30, 40, 40, 3), 90, dtype=np.uint8)
    write_video(videos / "video_00.mp4", frames=still)
    indexed(videos, tmp_path)
    capsys.readouterr()
    assert run(manifest) == 0
    assert "1 motion tables written, 1 were there" in capsys.readouterr().out
    table = MotionTables(tmp_path / "data.motion").read(Manifest.open(manifest).segment(0))
    assert table is not None
    assert table.magnitude.max() < 1


def test_a_video_that_no_longer_decodes_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = numbered_folder(tmp_path / "own", videos=3)
    (videos / "broken.mp4").write_bytes(b"no video")
    manifest = indexed(videos, tmp_path)
    (videos / "video_01.mp4").write_bytes(b"no longer a video")
    capsys.readouterr()
    assert run(manifest) == 1
    printed = capsys.readouterr()
    assert "2 motion tables written" in printed.out
    assert "no table for video_01.mp4" in printed.err
    assert "broken" not in printed.err


@pytest.mark.slow
def test_another_kind_is_refused_unless_it_replaces(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = indexed(videos, tmp_path)
    assert run(manifest) == 0
    assert motion.main([str(manifest), "--workers", "0"]) == 2
    assert "flow: frame_difference there, farneback asked" in capsys.readouterr().err
    assert motion.main([str(manifest), "--workers", "0", "--overwrite"]) == 0
    assert json.loads((tmp_path / "data.motion" / "settings.json").read_text())["flow"] == "farneback"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one manifest"),
        (["a.parquet", "b.parquet"], "name one manifest"),
        (["nowhere.parquet"], "manifest nowhere.parquet cannot be read"),
        (["dataset=folder"], "dataset=folder needs dataset.root=DIR"),
        (["dataset=folderr"], "did you mean 'folder'"),
        (["dataset=folder", "--root", "x"], "it is dataset.root=x"),
    ],
)
def test_wrong_input_is_refused_with_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def test_raft_needs_its_weights(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = indexed(videos, tmp_path)
    assert motion.main([str(manifest), "--flow", "raft"]) == 2
    assert "--flow raft needs --weights FILE" in capsys.readouterr().err
    assert motion.main([str(manifest), "--flow", "raft", "--weights", "nothing.pt"]) == 2
    assert motion.main([str(manifest), "--weights", "nothing.pt"]) == 2
    assert not (tmp_path / "data.motion").exists()


def test_an_interrupt_keeps_what_is_done(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = indexed(videos, tmp_path)
    compute = motion.compute_motion
    calls = []

    def until_the_third(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(*arguments, **settings)

    monkeypatch.setattr(motion, "compute_motion", until_the_third)
    assert run(manifest) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert run(manifest) == 0
    assert "4 motion tables written, 2 were there" in capsys.readouterr().out


# --- data sets as training names them ---------------------------------------------------------------------------------


def words(videos: Path, tmp_path: Path) -> list[str]:
    return ["dataset=folder", f"dataset.root={videos}", f"cache_dir={tmp_path / 'cache'}"]


def config(videos: Path, tmp_path: Path, *more: str) -> Any:
    given = [*words(videos, tmp_path), "method=shuffle_and_learn", "batch_size=4", "dataset.num_workers=0", *more]
    return compose_checked("train", given, provided=PROVIDED, settings=TrainSettings)


@pytest.mark.slow
def test_training_finds_the_tables_of_the_data_set_it_names(videos: Path, tmp_path: Path) -> None:
    _, before = build_checked(config(videos, tmp_path))
    note = before.check_motion()
    assert note is not None
    assert "6 of 6 training videos of folder have no motion table" in note
    assert f"ssl-video motion dataset=folder dataset.root={videos}" in note
    assert run(*words(videos, tmp_path)) == 0
    _, after = build_checked(config(videos, tmp_path))
    assert after.check_motion() is None
    assert motion_folder(after.manifest.parquet_file).is_dir()  # type: ignore[arg-type]
    batches = list(after.training_loader(1))
    assert batches[0].flags.get("no_motion_table", 0) == 0
    assert next(iter(before.training_loader(1))).flags["no_motion_table"] == 4


def test_missing_tables_are_refused_where_the_sampler_says_so(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"6 of 6 .* no motion table.*Or set sampler.missing_motion=uniform"):
        build_checked(config(videos, tmp_path, "sampler.missing_motion=error"))
    assert run(*words(videos, tmp_path)) == 0
    build_checked(config(videos, tmp_path, "sampler.missing_motion=error"))


@pytest.mark.slow
def test_a_resume_on_other_tables_is_refused(videos: Path, tmp_path: Path) -> None:
    _, before = build_checked(config(videos, tmp_path))
    state = {
        "manifest_hash": before.manifest.content_hash(),
        "consumed_batches": 0,
        "rows": None,
        "motion": before.motion.fingerprint(),
    }
    assert run(*words(videos, tmp_path)) == 0
    _, after = build_checked(config(videos, tmp_path))
    with pytest.raises(InputError, match="motion tables of folder have changed"):
        after.load_state_dict(state)


@pytest.mark.slow
def test_a_run_tells_what_it_did_without_tables(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["method=shuffle_and_learn", "batch_size=4", "dataset.num_workers=0", "trainer.max_steps=2", "run_dir=a"]
    assert train.main([*words(videos, tmp_path), *given]) == 0
    errors = capsys.readouterr().err
    assert errors.count("have no motion table") == 1
    assert "in 8 samples: no_motion_table 8." in errors
    assert json.loads(Path("a/run.json").read_text())["sampler_flags"] == {"no_motion_table": 8}
