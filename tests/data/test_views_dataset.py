"""Several views of a video from one opening of its file, none of which knows of the others."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_video.data.batch import ClipBatch
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.dataset import View
from ssl_video.data.decoding.decoder import DirectDecoder
from ssl_video.data.readers.base import Cut
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.stream import StreamTable
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.data.sources import folder
from ssl_video.data.transforms.base import Drawn, Transform
from ssl_video.data.transforms.resize_center_crop import ResizeCenterCrop
from ssl_video.utils.errors import UnreadableVideo
from support.folders import numbered_folder
from support.videos import read_frame_numbers

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")

PLAIN = ResizeCenterCrop(resize=40, crop=40, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
ROWS = np.arange(7)


class CountingReader(DecordReader):
    """Notes each opening, and of how many clips each request is."""

    opened: ClassVar[list[str]] = []
    asked: ClassVar[list[int]] = []

    def __init__(self, path: Path, *, bad: frozenset[str] = frozenset(), table: StreamTable | None = None) -> None:
        self.opened.append(path.name)
        if path.name in bad:
            raise UnreadableVideo("made to fail")
        super().__init__(path, table=table)

    def read_cuts(self, cuts: Sequence[Cut]) -> list[np.ndarray]:
        self.asked.append(len(cuts))
        return super().read_cuts(cuts)


class Noisy(Transform):
    """The same frames under noise from torch's global generator, drawn in both steps."""

    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        drawn = PLAIN.draw(sizes, num_frames=num_frames)
        return Drawn(drawn.parts, {**drawn.values, "noise": torch.randn(len(sizes))})

    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        return PLAIN.finish(clips, values) + values["noise"].view(-1, 1, 1, 1, 1) + torch.randn(())


def view(transform: Any = PLAIN, *, num_views: int = 2, stride: int = 1) -> View:
    return View(UniformClips(num_views=num_views, num_frames=4, frame_stride=stride), transform)


VIEWS = {"near": view(), "far": view(stride=3), "noisy": view(Noisy()), "crops": view(PLAIN.with_crops("three"))}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_folder(tmp_path_factory.mktemp("numbered"), videos=7)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    CountingReader.opened.clear()
    CountingReader.asked.clear()


def batches(
    videos: Path,
    cache: Path,
    views: dict[str, View] = VIEWS,
    *,
    rows: np.ndarray = ROWS,
    batch_size: int = 3,
    num_workers: int = 0,
    reader: Any = CountingReader,
) -> list[dict[str, ClipBatch]]:
    module = VideoDataModule(
        name="folder",
        source=folder,
        root=str(videos),
        sampler=UniformClips(),
        transform=PLAIN,
        decoder=DirectDecoder(reader),
        batch_size=4,
        seed=3,
        cache_dir=cache,
        num_workers=num_workers,
    )
    return list(module.evaluation_views_loader(rows, views, batch_size=batch_size))


def clips_by_row(got: list[dict[str, ClipBatch]], name: str) -> dict[int, Tensor]:
    return {int(row): clips for batch in got for row, clips in zip(batch[name].rows, batch[name].clips, strict=True)}


def test_each_file_is_opened_once_and_asked_once(videos: Path, cache: Path) -> None:
    got = batches(videos, cache)
    assert CountingReader.opened == [f"video_{number:02d}.mp4" for number in range(7)]
    assert CountingReader.asked == [2 + 2 + 2 + 6] * 7, "one request for all views, which is one ordered pass"
    for batch in got:
        for name in ("near", "far", "crops"):
            frames = (batch[name].clips.permute(0, 1, 3, 4, 5, 2) * 255).round().byte().flatten(0, 2).numpy()
            assert read_frame_numbers(frames) == batch[name].indices.flatten().tolist()


def test_the_crops_of_a_clip_stand_together(videos: Path, cache: Path) -> None:
    for batch in batches(videos, cache):
        assert batch["crops"].clips.shape[1] == 6
        assert batch["crops"].indices.equal(batch["near"].indices.repeat_interleave(3, dim=1))


def test_every_row_comes_once_and_in_order(videos: Path, cache: Path) -> None:
    rows = np.array([0, 2, 3, 5, 6])
    for name in VIEWS:
        got = batches(videos, cache, rows=rows, batch_size=2)
        assert [batch[name].rows.tolist() for batch in got] == [[0, 2], [3, 5], [6]]


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_knows_neither_the_others_nor_the_batch(videos: Path, cache: Path, name: str) -> None:
    expected = clips_by_row(batches(videos, cache), name)
    alone = clips_by_row(batches(videos, cache, {name: VIEWS[name]}, rows=ROWS[2:], batch_size=1), name)
    reversed_order = dict(reversed(VIEWS.items()))
    other = clips_by_row(batches(videos, cache, reversed_order, batch_size=7, num_workers=2), name)
    assert all(clips.equal(expected[row]) for row, clips in alone.items())
    assert all(clips.equal(expected[row]) for row, clips in other.items())
    assert (len(alone), len(other)) == (5, 7)


def test_chance_differs_between_videos(videos: Path, cache: Path) -> None:
    got = batches(videos, cache)
    noise = {
        row: float((clips - clips_by_row(got, "near")[row]).mean()) for row, clips in clips_by_row(got, "noisy").items()
    }
    assert len({round(value, 4) for value in noise.values()}) == 7


def test_an_unreadable_video_is_reported_once_and_missing_in_all_views(videos: Path, cache: Path) -> None:
    reader = functools.partial(CountingReader, bad=frozenset({"video_03.mp4"}))
    got = batches(videos, cache, reader=reader)
    for name in VIEWS:
        assert sorted(clips_by_row(got, name)) == [0, 1, 2, 4, 5, 6]
    assert [(failure.row, failure.reason) for batch in got for failure in batch["near"].failures] == [
        (3, "made to fail")
    ]


def test_time_for_reading_is_counted_once(videos: Path, cache: Path) -> None:
    for batch in batches(videos, cache):
        first, *others = batch.values()
        assert 0 < first.read_seconds < 60
        assert [other.read_seconds for other in others] == [0, 0, 0]
