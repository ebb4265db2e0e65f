"""A folder of prepared files: who makes what, what a kill leaves, and what is refused."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ssl_video.data import prepared_folder
from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.index import index_annotated, index_folder
from ssl_video.data.manifest import Manifest
from ssl_video.data.prepare import FileToPrepare, PrepareSettings
from ssl_video.data.prepared_folder import (
    DiskFull,
    claim,
    deadline_seconds,
    files_to_prepare,
    locked,
    missing,
    prepare_all,
    prepared_path,
    remove_partials,
    shard_of,
    write_manifest,
)
from ssl_video.data.probe import probe_video
from ssl_video.utils.errors import InputError
from support.folders import REPOSITORY, numbered_folder
from support.videos import H264_RGB, write_video

SMALL = PrepareSettings(short_side=32)


def file(name: str, **other: Any) -> FileToPrepare:
    values = {"num_frames": 10, "fps": 25.0, "height": 40, "width": 40, "codec": "h264", "file_bytes": 1}
    return FileToPrepare(source=Path(name), path=name, **{**values, "modified_ns": None, **other})


# --- plan -------------------------------------------------------------------------------------------------------------


def test_names_stay_but_for_their_ending() -> None:
    assert prepared_path("a/b.mp4") == "a/b.mp4"
    assert prepared_path("a/b.MP4") == "a/b.MP4"
    assert prepared_path("a/b.avi") == "a/b.avi.mp4"
    assert prepared_path("frames of a video") == "frames of a video.mp4"
    long = prepared_path("a/" + "ж" * 125 + ".avi")  # 254 bytes
    assert long.startswith("a/") and long.endswith(".mp4") and len(long) < 80
    assert long != prepared_path("a/" + "ж" * 124 + "з.avi")


def test_each_file_belongs_to_one_shard_whatever_the_others() -> None:
    names = [f"videos/{number}.mp4" for number in range(3000)]
    shards = [[name for name in names if shard_of(name, 3) == shard] for shard in range(3)]
    assert sorted(name for shard in shards for name in shard) == sorted(names)
    assert all(900 < len(shard) < 1100 for shard in shards)
    assert shard_of("videos/7.mp4", 3) == 1  # the same on every machine
    assert {shard_of(name, 1) for name in names} == {0}


def test_a_file_is_made_once_however_many_segments_it_has(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "two.mkv", num_frames=50, encoding=H264_RGB)
    write_video(tmp_path / "in" / "long.mp4", num_frames=90)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    videos = [
        AnnotatedVideo("two.mkv", start_seconds=0.0, end_seconds=1.0),
        AnnotatedVideo("two.mkv", start_seconds=1.0, end_seconds=2.0),
        AnnotatedVideo("two.mkv", start_seconds=7.0, end_seconds=8.0),  # behind the end
        AnnotatedVideo("long.mp4"),
        AnnotatedVideo("broken.mp4"),
        AnnotatedVideo("gone.mp4"),
    ]
    manifest = index_annotated(tmp_path / "in", videos, num_workers=1, progress=False)
    files = files_to_prepare(manifest)
    assert sorted(own.path for own in files) == ["long.mp4", "two.mkv.mp4"]
    assert [own.file_bytes for own in files] == sorted((own.file_bytes for own in files), reverse=True)  # type: ignore[type-var]
    two = next(own for own in files if own.path == "two.mkv.mp4")
    assert [stretch.start_seconds for stretch in two.stretches] == [0.0, 1.0]
    assert (two.num_frames, two.fps, two.height, two.width, two.codec) == (50, 25.0, 80, 96, "h264")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    records = [{"path": name, "num_frames": 1, "fps": 1.0, "height": 2, "width": 2} for name in ("a.avi", "a.avi.mp4")]
    with pytest.raises(InputError, match=r"'a.avi' and 'a.avi.mp4' would both become 'a.avi.mp4'"):
        files_to_prepare(Manifest.from_records(records, root=tmp_path))


def test_large_files_get_more_time() -> None:
    small, large = file("a"), file("b", num_frames=100_000, height=1080, width=1920)
    assert 120 < deadline_seconds(small) < 130
    assert deadline_seconds(large) > 10_000


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_is_claimed_once_for_one_kind_of_files(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "fast" / "out"
    source.mkdir()
    claim(out, SMALL, source_root=source)
    claim(out, SMALL, source_root=source)
    with pytest.raises(InputError, match=r"short_side: 32 there, 64 asked"):
        claim(out, replace(SMALL, short_side=64), source_root=source)
    with pytest.raises(InputError, match=r"source: .*in there, .*moved asked"):
        claim(out, SMALL, source_root=tmp_path / "moved")


def test_jobs_that_begin_together_do_not_refuse_each_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".settings.json.0123.partial").write_text("{")  # another job is about to write it
    claim(out, SMALL, source_root=tmp_path / "in")


@pytest.mark.parametrize("name", ["in", "in/out", "other", "other/file", "foreign", "no_json"])
def test_folders_of_others_are_refused(tmp_path: Path, name: str) -> None:
    for folder in ("in", "other", "foreign", "no_json"):
        (tmp_path / folder).mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    (tmp_path / "foreign" / "settings.json").write_text('["of another program"]')
    (tmp_path / "no_json" / "settings.json").write_text("colour = blue")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"only read|holds other files|name another folder"):
        claim(tmp_path / name, SMALL, source_root=tmp_path / "in")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be (written|read)|holds other files"):
        claim(tmp_path / "file" / "out", SMALL, source_root=tmp_path / "in")


def test_shards_work_together_and_the_last_call_alone(tmp_path: Path) -> None:
    with locked(tmp_path, alone=False), locked(tmp_path, alone=False):
        refuse_to_lock(tmp_path, alone=True)
    with locked(tmp_path, alone=True):
        refuse_to_lock(tmp_path, alone=False)


def refuse_to_lock(folder: Path, *, alone: bool) -> None:
    with pytest.raises(InputError, match="another ssl-video prepare is at work"), locked(folder, alone=alone):
        pass


def test_a_replaced_source_is_missing_again(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("")
    now = (tmp_path / "a.mp4").stat().st_mtime_ns
    same, other, unknown = (file("a.mp4", modified_ns=value) for value in (now + 10**9, now + 10**10, None))
    assert missing([same, other, unknown, file("b.mp4")], tmp_path) == [other, file("b.mp4")]


# --- children ---------------------------------------------------------------------------------------------------------

FAKE = """
import json, os, sys, time
for line in sys.stdin:
    name = json.loads(line)["file"]["path"]
    if name.startswith("crash"): os.abort()
    if name.startswith("hang"): time.sleep(60)
    answer = {"bytes": 7}
    if name.startswith("bad"): answer = {"reason": "is bad"}
    if name.startswith("full"): answer = {"reason": "No space left on device", "is_full": True}
    print(json.dumps(answer), flush=True)
"""


def test_a_file_that_crashes_or_hangs_ends_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared_folder, "deadline_seconds", lambda file: 1.0)
    files = [file(name) for name in ("ok_1", "crash_1", "ok_2", "hang_1", "bad_1", "crash_2", "ok_3")]
    outcomes = list(prepare_all(files, tmp_path, SMALL, num_workers=2, program=(sys.executable, "-c", FAKE)))
    told = {outcome.file.path: outcome.reason or outcome.file_bytes for outcome in outcomes}
    assert told == {
        **dict.fromkeys(("ok_1", "ok_2", "ok_3"), 7),
        **dict.fromkeys(("crash_1", "crash_2"), "ended its decoder: SIGABRT"),
        "hang_1": "gave no answer in 1 s",
        "bad_1": "is bad",
    }


def test_a_full_disk_ends_the_work(tmp_path: Path) -> None:
    files = [file(name) for name in ("ok_1", "full", *(f"ok_{number}" for number in range(2, 30)))]
    outcomes = prepare_all(files, tmp_path, SMALL, num_workers=1, program=(sys.executable, "-c", FAKE))
    assert next(outcomes).file.path == "ok_1"
    with pytest.raises(DiskFull, match="No space left"):
        list(outcomes)


def test_nothing_to_do_starts_no_process(tmp_path: Path) -> None:
    assert list(prepare_all([], tmp_path, SMALL, num_workers=2, program=("/no/such/program",))) == []


# --- killed at random moments -----------------------------------------------------------------------------------------

ENDLESS_WORK = """
import sys
from pathlib import Path
from ssl_video.data.manifest import Manifest
from ssl_video.data.prepare import PrepareSettings
from ssl_video.data.prepared_folder import claim, files_to_prepare, missing, prepare_all
if __name__ == "__main__":
    manifest, out = Manifest.open(Path(sys.argv[1])), Path(sys.argv[2])
    settings = PrepareSettings(short_side=32, motion="frame_difference")
    claim(out, settings, source_root=manifest.root)
    for outcome in prepare_all(missing(files_to_prepare(manifest), out), out, settings, num_workers=2):
        print(outcome.file.path, outcome.reason, flush=True)
"""


@pytest.mark.slow
def test_after_kills_at_any_moment_the_files_are_those_of_one_go(tmp_path: Path) -> None:
    videos = numbered_folder(tmp_path / "in", videos=12, num_frames=60, size=240)
    index_folder(videos, num_workers=2, progress=False).write(tmp_path / "data.parquet")
    settings = PrepareSettings(short_side=32, motion="frame_difference")
    manifest = Manifest.open(tmp_path / "data.parquet")
    files = files_to_prepare(manifest)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    claim(whole, settings, source_root=videos)
    assert all(outcome.reason is None for outcome in prepare_all(files, whole, settings, num_workers=2))

    rng, kills = random.Random(0), 0
    for _ in range(30):
        command = [sys.executable, "-c", ENDLESS_WORK, str(tmp_path / "data.parquet"), str(killed)]
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        while process.stdout.readline() and rng.random() < 0.5:  # a few files more
            time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
        made = [own for own in files if own not in missing(files, killed)]
        for own in rng.sample(made, min(3, len(made))):
            assert probe_video(killed / own.path)["num_frames"] == own.num_frames  # complete or absent
        if kills == 5:
            break
        if len(made) == len(files):  # before it was killed often enough: from the beginning
            killed = tmp_path / f"killed_{kills}"
    assert kills == 5
    time.sleep(0.5)  # children notice at once that they are alone
    remove_partials(killed)
    list(prepare_all(missing(files, killed), killed, settings, num_workers=2))

    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.mp4")}

    assert content(killed) == content(whole)
    assert not list(killed.rglob(".*.partial"))
    tables = [sorted(path.name for path in (out / "manifest.motion").glob("*.npz")) for out in (killed, whole)]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 12


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    # A child that hangs in its work still sees that nobody waits for it.
    script = (
        "import sys, time\n"
        "from ssl_video.data.line_process import answer_lines\n"
        "answer_lines(lambda question: time.sleep(60))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    process.stdin.write(b"{}\n")
    process.stdin.flush()
    time.sleep(0.2)
    process.stdin.close()
    assert process.wait(timeout=20) == 0


# --- the new manifest -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_new_manifest_has_all_rows_and_says_what_the_new_files_are(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "a.mkv", num_frames=50, encoding=H264_RGB)
    write_video(tmp_path / "in" / "b.mp4", num_frames=40, height=120, width=160)
    write_video(tmp_path / "in" / "fails.mp4", num_frames=20)
    videos = [
        AnnotatedVideo("a.mkv", {"label": "x", "tags": ["p", "q"]}, "train", "g", 0.0, 1.0, "vid", "seg1"),
        AnnotatedVideo("a.mkv", {"label": "y", "tags": []}, "val", "h", 1.0, 2.0, "vid", "seg2"),
        AnnotatedVideo("a.mkv", {"label": "y", "tags": None}, "test", None, 9.0, 10.0, "vid", "behind"),
        AnnotatedVideo("gone.mp4", {"label": None, "tags": ["p"]}),
        AnnotatedVideo("fails.mp4", {"label": "x", "tags": ["p"]}),
        AnnotatedVideo("b.mp4", {"label": "x", "tags": ["p"]}),
    ]
    source = index_annotated(tmp_path / "in", videos, num_workers=1, progress=False, num_left_out=3)
    files = [own for own in files_to_prepare(source) if own.path != "fails.mp4"]
    out = tmp_path / "out"
    assert not [own for own in prepare_all(files, out, SMALL, num_workers=1) if own.reason]
    for _ in range(2):  # once more changes nothing
        write_manifest(source, out, reasons={"fails.mp4": "too bad"}, num_workers=1, cache_dir=tmp_path / "cache")
    out = out.rename(tmp_path / "moved")  # copied to another disk
    made = Manifest.open(out / "manifest.parquet", cache_dir=tmp_path / "cache")
    assert made.root == out
    assert made.file(5).is_file()
    assert made.num_left_out == 3
    kept = ("segment_id", "video_id", "start_seconds", "end_seconds", "split", "group", "label", "tags")
    assert {name: made.column(name) for name in kept} == {name: source.column(name) for name in kept}
    assert made.label_columns == ["label", "tags"]
    assert made.column("path") == [*["a.mkv.mp4"] * 3, "gone.mp4", "fails.mp4", "b.mp4"]
    assert made.column("status") == ["ok", "ok", "empty_segment", "missing", "unreadable", "ok"]
    assert made.column("reason")[3:5] == ["the file is not there", "could not be prepared: too bad"]
    assert made.column("width")[5] == 42
    assert made.column("keyframe_spacing")[0] == 16
    assert made.column("bytes")[5] == (out / "b.mp4").stat().st_size
    for row in (0, 1, 5):
        old, new = source.segment(row), made.segment(row)
        assert (new.first_frame, new.num_frames, new.fps) == (old.first_frame, old.num_frames, old.fps)
