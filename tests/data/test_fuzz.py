"""Broken files through every reader: nothing crashes, hangs or lies, and training ends with all sound videos seen.

``make fuzz`` runs it over 2,000 files, ``make test`` over a few of each kind.
"""

import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.decoding.isolated import IsolatedDecoder
from ssl_video.data.index import index_folder
from ssl_video.data.manifest import OK, Manifest
from ssl_video.data.readers.auto import AutoReader
from ssl_video.data.readers.base import Cut, FramePart
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.torchcodec import TorchcodecReader
from ssl_video.data.samplers.random_clips import RandomClips
from ssl_video.data.sources import folder
from ssl_video.data.transforms.contrastive import ContrastiveTransform
from ssl_video.utils.errors import UnreadableVideo
from support.folders import run_command
from support.mutations import KINDS, Broken, break_file, sound_files
from support.videos import read_frame_numbers, write_video

NUM_FILES = int(os.environ.get("FUZZ_FILES", 4 * len(KINDS)))
DEADLINE_SECONDS = 20.0
READERS = [
    pytest.param(DecordReader, id="decord"),
    pytest.param(PyAVReader, id="pyav"),
    pytest.param(AutoReader, id="auto"),
    pytest.param(TorchcodecReader, id="torchcodec", marks=pytest.mark.torchcodec),
]

pytestmark = pytest.mark.timeout(60 + 2 * NUM_FILES)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sound_files(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def broken(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Broken]:
    target = tmp_path_factory.mktemp("broken")
    return [break_file(number, sources, target) for number in range(NUM_FILES)]


@pytest.fixture(scope="module")
def manifest(broken: list[Broken]) -> Manifest:
    root = Path(os.path.commonpath([own.path for own in broken]))
    return index_folder(root, num_workers=2, progress=False)


def test_the_index_names_every_file_once_and_says_why(broken: list[Broken], manifest: Manifest) -> None:
    paths = manifest.column("path")
    expected = {own.path.relative_to(manifest.root).as_posix() for own in broken}
    assert Counter(paths) == Counter(expected)
    status = dict(zip(paths, manifest.column("status"), strict=True))
    reasons = dict(zip(paths, manifest.column("reason"), strict=True))
    assert all(reasons[path] for path in paths if status[path] != OK)
    by_kind: dict[str, set[str]] = {}
    for own in broken:
        by_kind.setdefault(own.kind, set()).add(status[own.path.relative_to(manifest.root).as_posix()])
    assert by_kind["wrong ending"] == {OK}, "a wrong ending is no fault"
    hopeless = ("no bytes", "noise", "text", "only sound", "link in a loop", "dangling link")
    assert all(OK not in by_kind[kind] for kind in hopeless)
    assert by_kind["only sound"] == {"no_video_stream"}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_gives_all_frames_or_a_reason(broken: list[Broken], manifest: Manifest, reader: Any) -> None:
    decoder = IsolatedDecoder(reader, deadline_seconds=DEADLINE_SECONDS, recycle_above_mib=2048)
    rows = {path: row for row, path in enumerate(manifest.column("path"))}
    status, given, reasons = manifest.column("status"), 0, []
    try:
        for number, own in enumerate(broken):
            row = rows[own.path.relative_to(manifest.root).as_posix()]
            rng = np.random.default_rng(number)
            # What the index could not read is asked for too: files get worse between two runs.
            frames = max(8, manifest.segment(row).num_frames) if status[row] == OK else 8
            indices = rng.integers(min(frames, manifest.segment(row).num_frames or 8), size=6)
            cuts = [Cut(np.sort(indices)), Cut(indices[:4], FramePart(box=(4, 4, 20, 30), size=(16, 16)))]
            try:
                whole, part = decoder.decode(own.path, cuts)
            except UnreadableVideo as fault:
                reasons.append(str(fault))
                continue
            given += 1
            assert (len(whole), part.shape) == (6, (4, 16, 16, 3))
            if own.kind == "wrong ending":
                assert read_frame_numbers(whole) == np.sort(indices).tolist()
    finally:
        decoder.close()
    assert all(reasons)
    assert given > NUM_FILES / len(KINDS), "the broken files that can be read are read"


@pytest.fixture(scope="module")
def one_third_broken(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound videos, and half as many broken ones."""
    root = tmp_path_factory.mktemp("mixed")
    for number in range(2 * len(KINDS)):
        write_video(root / f"sound {number:02d}.mp4", num_frames=24, height=40, width=48)
    for number in range(len(KINDS)):
        break_file(number, sources, root)
    return root


def sound_rows(manifest: Manifest) -> set[int]:
    return {row for row, path in enumerate(manifest.column("path")) if path.startswith("sound")}


@pytest.fixture
def module(one_third_broken: Path, tmp_path: Path) -> Iterator[VideoDataModule]:
    decoder = IsolatedDecoder(partial(PyAVReader), deadline_seconds=DEADLINE_SECONDS, recycle_above_mib=2048)
    yield VideoDataModule(
        name="folder",
        source=folder,
        root=str(one_third_broken),
        sampler=RandomClips(num_views=2, num_frames=3, frame_stride=2),
        transform=ContrastiveTransform(size=24),
        decoder=decoder,
        batch_size=1,
        seed=3,
        cache_dir=tmp_path,
        num_workers=2,
        max_unreadable_share=0.5,
    )
    decoder.close()


def test_an_epoch_over_a_folder_one_third_broken_shows_every_sound_video(module: VideoDataModule) -> None:
    batches = list(module.training_loader(module.batches_per_epoch(1)))
    assert len(batches) == len(module.train_rows())
    seen = {int(row) for batch in batches for row in batch.rows}
    assert sound_rows(module.manifest) <= seen
    failed = Counter(failure.row for batch in batches for failure in batch.failures)
    assert not sound_rows(module.manifest) & set(failed)


@pytest.mark.slow
def test_a_training_run_over_such_a_folder_ends_well(one_third_broken: Path, tmp_path: Path) -> None:
    arguments = [
        "dataset=folder",
        f"dataset.root={one_third_broken}",
        "dataset.max_unreadable_share=0.5",
        "batch_size=4",
        "trainer.max_epochs=1",
        f"cache_dir={tmp_path / 'cache'}",
        "run_dir=run",
    ]
    code, output = run_command("train.py", arguments, folder=tmp_path)
    assert code == 0, output
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
