"""Videos that failed are left out from the next run on, whoever wrote them down and whatever was cut off."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.decoding.isolated import IsolatedDecoder
from ssl_video.data.decoding.quarantine import (
    BYTES_VARIABLE,
    keep_in_quarantine,
    quarantine_file,
    read_quarantine,
    rows_in_quarantine,
)
from ssl_video.data.manifest import Manifest
from ssl_video.data.samplers.random_clips import RandomClips
from ssl_video.data.sources import folder
from ssl_video.data.transforms.contrastive import ContrastiveTransform
from ssl_video.utils.errors import InputError
from support.stub_readers import MixedReader
from support.videos import write_video

NUM_FILES = 6
EVERY_ROW = np.arange(NUM_FILES)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Files that are no videos: the quarantine looks at names, sizes and times."""
    root = tmp_path / "videos"
    root.mkdir()
    for number in range(NUM_FILES):
        (root / f"{number} é.mp4").write_bytes(bytes(10 + number))
    records = [{"path": path.name, "bytes": path.stat().st_size} for path in sorted(root.iterdir())]
    return Manifest.from_records(records, root=root)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_nothing_is_in_quarantine_at_first(manifest: Manifest, cache: Path) -> None:
    assert read_quarantine(quarantine_file(cache)) == []
    assert len(rows_in_quarantine(manifest, EVERY_ROW, cache_dir=cache)) == 0


def test_a_video_stands_there_with_reason_and_count(manifest: Manifest, cache: Path) -> None:
    file = quarantine_file(cache)
    for row, reason in ((4, "gave no answer in 60 s"), (1, "cut\noff"), (4, "ended its decoder: SIGSEGV")):
        keep_in_quarantine(file, manifest, row, reason)
    first, second = read_quarantine(file)
    assert (first.path, first.bytes, first.reason, first.count) == ("4 é.mp4", 14, "ended its decoder: SIGSEGV", 2)
    assert (second.path, second.reason, second.count) == ("1 é.mp4", "cut\noff", 1)
    assert first.root == str(manifest.root)
    assert rows_in_quarantine(manifest, EVERY_ROW, cache_dir=cache).tolist() == [1, 4]
    assert rows_in_quarantine(manifest, np.array([0, 4, 5]), cache_dir=cache).tolist() == [4]


def test_all_segments_of_a_file_are_left_out(manifest: Manifest, cache: Path) -> None:
    path = manifest.path(2)
    records = [{"path": path, "start_seconds": start, "end_seconds": start + 1.0} for start in (0.0, 1.0)]
    segments = Manifest.from_records([*records, {"path": manifest.path(3)}], root=manifest.root)
    keep_in_quarantine(quarantine_file(cache), segments, 1, "bad")
    assert rows_in_quarantine(segments, np.arange(3), cache_dir=cache).tolist() == [0, 1]


def test_a_replaced_file_is_tried_again(manifest: Manifest, cache: Path) -> None:
    keep_in_quarantine(quarantine_file(cache), manifest, 2, "bad")
    keep_in_quarantine(quarantine_file(cache), manifest, 3, "bad")
    keep_in_quarantine(quarantine_file(cache), manifest, 4, "bad")
    other_time, other_size, gone = (manifest.file(row) for row in (2, 3, 4))
    os.utime(other_time, ns=(0, 1))
    time = other_size.stat().st_mtime_ns
    other_size.write_bytes(b"another")
    os.utime(other_size, ns=(0, time))
    gone.unlink()
    assert len(rows_in_quarantine(manifest, EVERY_ROW, cache_dir=cache)) == 0


def test_a_file_that_is_away_or_another_than_was_indexed_is_not_to_blame(manifest: Manifest, cache: Path) -> None:
    manifest.file(0).unlink()
    manifest.file(1).write_bytes(b"another")
    for row in (0, 1):
        assert not keep_in_quarantine(quarantine_file(cache), manifest, row, "bad")
    assert not quarantine_file(cache).exists()


def test_lines_that_are_cut_off_or_damaged_harm_no_other(manifest: Manifest, cache: Path) -> None:
    file = quarantine_file(cache)
    keep_in_quarantine(file, manifest, 0, "bad")
    whole = file.read_bytes()
    file.write_bytes(whole + b'\n{"path": "3 \xc3')
    keep_in_quarantine(file, manifest, 1, "bad")
    with file.open("ab") as opened:
        opened.write(b'\n[]\n{}\nnull\n\xff\xfe\n{"path": "5", "bytes": "x"}\n' + whole[:-9])
    assert rows_in_quarantine(manifest, EVERY_ROW, cache_dir=cache).tolist() == [0, 1]


def _write_often(file: Path, manifest: Manifest) -> None:
    for turn in range(50):
        for row in range(NUM_FILES):
            keep_in_quarantine(file, manifest, row, f"turn {turn}" * 100)


def test_several_processes_may_write_at_once(manifest: Manifest, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(quarantine_file(cache), manifest)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [entry.count for entry in read_quarantine(quarantine_file(cache))] == [150] * NUM_FILES


def test_other_ranks_look_at_what_the_first_one_saw(
    manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv(BYTES_VARIABLE, "10")  # of an earlier job
    keep_in_quarantine(quarantine_file(cache), manifest, 2, "bad")
    assert rows_in_quarantine(manifest, EVERY_ROW, cache_dir=cache).tolist() == [2]
    keep_in_quarantine(quarantine_file(cache), manifest, 3, "bad")  # by another run
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rows_in_quarantine(manifest, EVERY_ROW, cache_dir=cache).tolist() == [2]
    monkeypatch.delenv("LOCAL_RANK")
    assert rows_in_quarantine(manifest, EVERY_ROW, cache_dir=cache).tolist() == [2, 3]


# --- in the data module -----------------------------------------------------------------------------------------------

# Long enough for a sound read on a busy machine: each worker pays it once.
DEADLINE = 2.0
ODD = ("few", "hang", "segfault", "raise")


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve sound videos and four that the reader fails on, each in another way."""
    root = tmp_path_factory.mktemp("mixture")
    for name in (*(f"good_{number:02d}" for number in range(12)), *ODD):
        write_video(root / f"{name}.mp4", num_frames=12, height=32, width=32)
    return root


def module(root: Path, cache: Path, **changes: Any) -> VideoDataModule:
    arguments: dict[str, Any] = {
        "name": "folder",
        "source": folder,
        "root": str(root),
        "sampler": RandomClips(num_views=2, num_frames=3, frame_stride=1),
        "transform": ContrastiveTransform(size=16),
        "decoder": IsolatedDecoder(MixedReader, deadline_seconds=DEADLINE, recycle_above_mib=300),
        "batch_size": 4,
        "seed": 3,
        "cache_dir": cache,
        "num_workers": 2,
        "max_unreadable_share": 0.5,
    }
    return VideoDataModule(**(arguments | changes))


@pytest.mark.slow
def test_workers_see_every_sound_video_and_report_the_others(mixture: Path, cache: Path) -> None:
    datamodule = module(mixture, cache)
    batches = list(datamodule.training_loader(3 * datamodule.batches_per_epoch(1)))
    names = [Path(datamodule.manifest.path(row)).stem for row in range(len(datamodule.manifest))]
    seen = {names[row] for batch in batches for row in batch.rows.tolist()}
    assert seen == {name for name in names if name.startswith("good")}
    reasons = {names[failure.row]: failure.reason for batch in batches for failure in batch.failures}
    assert reasons == {
        "few": "2 of 3 frames came",
        "hang": f"gave no answer in {DEADLINE:g} s",
        "segfault": "ended its decoder: SIGSEGV",
        "raise": "KeyError: 'moov'",
    }
    assert {cause for batch in batches for cause in batch.restarts} == {"deadline", "died"}
    assert sum(batch.restarts.get("deadline", 0) for batch in batches) <= 2, "once for each worker"


def test_the_next_run_leaves_them_out_and_evaluation_does_not(mixture: Path, cache: Path) -> None:
    datamodule = module(mixture, cache)
    names = [Path(datamodule.manifest.path(row)).stem for row in range(len(datamodule.manifest))]
    bad = [row for row, name in enumerate(names) if name in ODD]
    assert len(datamodule.train_rows()) == 16
    for row in bad:
        datamodule.keep_in_quarantine(row, "bad")
    after = module(mixture, cache)
    assert after.train_rows().tolist() == [row for row in range(16) if row not in bad]
    assert after.quarantined.tolist() == bad
    assert len(after.readable_rows("train")) == 16
    assert len(module(mixture, cache, quarantine=False).train_rows()) == 16
    with pytest.raises(
        InputError, match=r"4 of 16 training videos are in quarantine, above .*=0\.2.*quarantine\.jsonl"
    ):
        module(mixture, cache, max_unreadable_share=0.2).train_rows()


def test_a_resumed_run_keeps_its_own_list(mixture: Path, cache: Path) -> None:
    datamodule = module(mixture, cache)
    rows = datamodule.train_rows()
    datamodule.keep_in_quarantine(3, "bad")
    after = module(mixture, cache)
    assert len(after.train_rows()) == 15
    after.use_rows(rows)
    assert after.train_rows().tolist() == rows.tolist()
    assert len(after.quarantined) == 0


def test_processes_that_see_other_quarantines_are_refused(
    mixture: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datamodule = module(mixture, cache)
    datamodule.trainer = Any  # type: ignore[assignment]
    monkeypatch.setattr("ssl_video.data.datamodule.gather_objects", lambda value: [value, "another list"])
    with pytest.raises(InputError, match=r"different lists of training videos of folder.*dataset\.quarantine=false"):
        datamodule.train_dataloader()


def test_an_entry_is_plain_json(manifest: Manifest, cache: Path) -> None:
    keep_in_quarantine(quarantine_file(cache), manifest, 5, "bad")
    entry = json.loads(quarantine_file(cache).read_text())
    assert sorted(entry) == ["bytes", "modified_ns", "path", "reason", "root", "time"]
