"""Repeated augmentation: one opening, several samples in the next batches, and a position that stays arithmetic."""

import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from ssl_video.data.batch import ClipBatch
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.decoding.decoder import DirectDecoder
from ssl_video.data.order import BatchOrder
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.repeats import RepeatedOrder
from ssl_video.data.samplers.random_clips import RandomClips
from ssl_video.data.sources import folder
from ssl_video.data.transforms.contrastive import ContrastiveTransform
from ssl_video.utils.errors import InputError
from support.folders import numbered_folder


class CountingReader(DecordReader):
    """Notes each opening."""

    opened: ClassVar[list[str]] = []

    def __init__(self, path: Path, **rest: Any) -> None:
        self.opened.append(path.name)
        super().__init__(path, **rest)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_folder(tmp_path_factory.mktemp("numbered"), videos=11)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def module(root: Path, cache: Path, **changes: Any) -> VideoDataModule:
    """Eleven videos, four to a batch: two openings an epoch."""
    arguments: dict[str, Any] = {
        "name": "folder",
        "source": folder,
        "root": str(root),
        "sampler": RandomClips(num_views=2, num_frames=3, frame_stride=2),
        "transform": ContrastiveTransform(size=24),
        "decoder": DirectDecoder(CountingReader),
        "batch_size": 4,
        "seed": 3,
        "cache_dir": cache,
        "num_workers": 0,
        "clips_per_open": 3,
    }
    return VideoDataModule(**(arguments | changes))


def batches(datamodule: VideoDataModule, number: int) -> list[ClipBatch]:
    return list(datamodule.training_loader(number))


def same(a: ClipBatch, b: ClipBatch) -> bool:
    return a.clips.equal(b.clips) and a.rows.equal(b.rows) and a.indices.equal(b.indices) and a.epoch == b.epoch


def test_every_video_of_an_epoch_is_opened_once_and_seen_in_as_many_batches(videos: Path, cache: Path) -> None:
    datamodule = module(videos, cache)
    assert datamodule.batches_per_epoch(1) == 6
    CountingReader.opened.clear()
    got = batches(datamodule, 6)
    assert len(CountingReader.opened) == len(set(CountingReader.opened)) == 8
    assert [batch.epoch for batch in got] == [0] * 6
    assert all(len(set(batch.rows.tolist())) == 4 for batch in got), "no batch holds a video twice"
    assert set(Counter(row for batch in got for row in batch.rows.tolist()).values()) == {3}
    assert got[0].rows.equal(got[2].rows) and not got[2].rows.equal(got[3].rows)


def test_repeats_draw_frames_and_looks_anew(videos: Path, cache: Path) -> None:
    first, second, third = batches(module(videos, cache), 3)
    assert not first.indices.equal(second.indices) and not second.indices.equal(third.indices)
    assert not torch.allclose(first.clips, second.clips)


def test_the_first_repeat_is_what_it_would_be_alone(videos: Path, cache: Path) -> None:
    alone = batches(module(videos, cache, clips_per_open=1), 2)
    together = batches(module(videos, cache), 6)
    assert same(alone[0], together[0])
    assert same(alone[1], together[3])


def test_workers_change_nothing(videos: Path, cache: Path) -> None:
    expected = batches(module(videos, cache), 8)
    got = batches(module(videos, cache, num_workers=2), 8)
    assert len(got) == 8
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_run_goes_on_in_the_middle_of_an_opening(videos: Path, cache: Path, workers: int, stop: int) -> None:
    expected = batches(module(videos, cache), 8)
    first = module(videos, cache, num_workers=workers)
    seen = list(itertools.islice(first.training_loader(8), stop))
    progress = SimpleNamespace(current=SimpleNamespace(processed=stop))
    first.trainer = SimpleNamespace(  # type: ignore[assignment]
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    )
    second = module(videos, cache, num_workers=workers)
    second.load_state_dict(first.state_dict())
    assert all(same(a, b) for a, b in zip([*seen, *batches(second, 8)], expected, strict=True))


def test_going_on_with_another_number_is_refused(videos: Path, cache: Path) -> None:
    first = module(videos, cache)
    progress = SimpleNamespace(current=SimpleNamespace(processed=1))
    first.trainer = SimpleNamespace(  # type: ignore[assignment]
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    )
    with pytest.raises(InputError, match=r"clips_per_open=2, but the run began with 3"):
        module(videos, cache, clips_per_open=2).load_state_dict(first.state_dict())


def test_less_than_one_is_refused(videos: Path, cache: Path) -> None:
    with pytest.raises(InputError, match=r"clips_per_open=0 must be at least 1"):
        module(videos, cache, clips_per_open=0)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("first_batch", range(7))
def test_the_order_is_computed_not_accumulated(first_batch: int, world_size: int) -> None:
    def keys(start: int, rank: int) -> list[Any]:
        openings = BatchOrder(
            range(10), batch_size=2, num_batches=4, first_batch=start // 2, rank=rank, world_size=world_size
        )
        order = RepeatedOrder(openings, clips_per_open=2, num_batches=7, first_batch=start)
        lists = list(order)
        assert len(lists) == len(order)
        return [[key._replace(repeats=(r,)) for key in own] for own in lists for r in own[0].repeats]

    for rank in range(world_size):
        whole = keys(0, rank)
        assert len(whole) == 7
        assert keys(first_batch, rank) == whole[first_batch:]
