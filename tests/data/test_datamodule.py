"""Batches are a function of (seed, epoch, position): any number of workers, any stop, the same pixels."""

import functools
import itertools
import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssl_video.data.batch import ClipBatch
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.dataset import View
from ssl_video.data.decoding.decoder import DirectDecoder
from ssl_video.data.order import SampleKey
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.stream import StreamTable
from ssl_video.data.samplers.consecutive_clips import ConsecutiveClips
from ssl_video.data.samplers.random_clips import RandomClips
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.data.sources import folder, kinetics
from ssl_video.data.transforms.contrastive import ContrastiveTransform
from ssl_video.data.transforms.resize_center_crop import ResizeCenterCrop
from ssl_video.utils.errors import InputError, UnreadableVideo
from support import archives
from support.folders import labelled_folder, numbered_folder
from support.videos import read_frame_numbers, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_folder(tmp_path_factory.mktemp("numbered"), videos=11)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def module(root: Path, cache: Path, **changes: Any) -> VideoDataModule:
    arguments: dict[str, Any] = {
        "name": "folder",
        "source": folder,
        "root": str(root),
        "sampler": RandomClips(num_views=2, num_frames=3, frame_stride=2),
        "transform": ContrastiveTransform(size=24),
        "decoder": DirectDecoder(DecordReader),
        "batch_size": 4,
        "seed": 3,
        "cache_dir": cache,
        "num_workers": 0,
    }
    return VideoDataModule(**(arguments | changes))


def batches(datamodule: VideoDataModule, epochs: int) -> list[ClipBatch]:
    return list(datamodule.training_loader(epochs * datamodule.batches_per_epoch(1)))  # type: ignore[arg-type]


def same(a: ClipBatch, b: ClipBatch) -> bool:
    names = ("clips", "indices", "labels", "rows", "positions")
    return a.epoch == b.epoch and all(torch.equal(getattr(a, n), getattr(b, n)) for n in names)


def test_indices_of_a_batch_are_the_frames_in_its_pixels(videos: Path, cache: Path) -> None:
    plain = ResizeCenterCrop(resize=40, crop=40, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    for batch in batches(module(videos, cache, transform=plain), 2):
        frames = (batch.clips.permute(0, 1, 3, 4, 5, 2) * 255).round().byte().flatten(0, 2).numpy()
        assert read_frame_numbers(frames) == batch.indices.flatten().tolist()


@pytest.mark.parametrize("reader", [DecordReader, PyAVReader])
def test_pixels_of_a_stretch_are_those_between_its_times(tmp_path: Path, reader: Any) -> None:
    """Two clips of one video of Kinetics, not cut out: seconds 2 to 4 and 5 to 9 at 10 frames per second."""
    write_video(tmp_path / "train" / "abc.mp4", num_frames=80, fps=10, height=40, width=40)
    header = "label,youtube_id,time_start,time_end,split"
    archives.write(tmp_path / "train.csv", f"{header}\nrunning,abc,2,4,train\nwalking,abc,5,9,train\n")
    plain = ResizeCenterCrop(resize=40, crop=40, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    stretches = module(
        tmp_path,
        tmp_path / "cache",
        source=functools.partial(kinetics, num_classes=400, splits=["train"]),
        sampler=UniformClips(num_views=3, num_frames=4, frame_stride=2),
        transform=plain,
        decoder=DirectDecoder(reader),
        batch_size=2,
    )
    views = {"plain": View(stretches.sampler, plain)}
    batch = next(iter(stretches.evaluation_views_loader(stretches.readable_rows("train"), views, batch_size=2)))[
        "plain"
    ]
    frames = (batch.clips.permute(0, 1, 3, 4, 5, 2) * 255).round().byte().flatten(0, 2).numpy()
    shown = np.array(read_frame_numbers(frames)).reshape(2, 3, 4)
    assert (shown[0].min(), shown[0].max()) == (20, 39)
    assert (shown[1].min(), shown[1].max()) == (50, 79), "it ends with the video, after 3 of its 4 seconds"
    assert (np.diff(shown) == 2).all()
    assert np.array_equal(shown - np.array([20, 50])[:, None, None], batch.indices.numpy())
    assert len(set(batch.videos.tolist())) == 1, "both are of one video"


pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(videos: Path, cache: Path, workers: int) -> None:
    expected = batches(module(videos, cache), 3)
    got = batches(module(videos, cache, num_workers=workers), 3)
    assert len(got) == len(expected) == 6
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


def test_workers_end_with_the_iteration_while_the_loader_is_kept(videos: Path, cache: Path) -> None:
    """Jobs of a sweep run in one process, which would gather workers and their decoding processes."""
    before = set(multiprocessing.active_children())
    loader = module(videos, cache, num_workers=1).training_loader(6)
    iteration: Any = iter(loader)
    next(iteration)
    assert len(set(multiprocessing.active_children()) - before) == 1
    iteration.close()
    assert not set(multiprocessing.active_children()) - before
    assert len(loader) == 6


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopping_after_any_batch_and_going_on_gives_the_same_pixels(
    videos: Path, cache: Path, workers: int, stop: int
) -> None:
    """Two batches an epoch: stops in the middle of one, at its end, and in the next; prefetched batches don't count."""
    expected = batches(module(videos, cache), 3)
    first = module(videos, cache, num_workers=workers)
    seen = list(itertools.islice(first.training_loader(6), stop))
    progress = SimpleNamespace(current=SimpleNamespace(processed=stop))
    epoch_loop = SimpleNamespace(batch_progress=progress)
    first.trainer = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=epoch_loop))  # type: ignore[assignment]
    second = module(videos, cache, num_workers=workers)
    second.load_state_dict(first.state_dict())
    rest = batches(second, 3)
    assert [batch.epoch for batch in [*seen, *rest]] == [0, 0, 1, 1, 2, 2]  # type: ignore[attr-defined]
    assert all(same(a, b) for a, b in zip([*seen, *rest], expected, strict=True))  # type: ignore[arg-type]


def test_epochs_and_seeds_differ(videos: Path, cache: Path) -> None:
    first = batches(module(videos, cache), 2)
    other = batches(module(videos, cache, seed=4), 1)
    assert not same(first[0], first[2])
    assert not torch.equal(first[0].rows, other[0].rows)


def test_global_random_state_is_left_alone(videos: Path, cache: Path) -> None:
    dataset = module(videos, cache).training_loader(1).openings.dataset
    state = torch.get_rng_state()
    dataset[SampleKey(0, 5, 2)]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), state)


def test_too_short_videos_are_left_out_and_counted(videos: Path, cache: Path) -> None:
    """Videos have 30, 31 or 32 frames; the sampler needs 31 and its policy is error."""
    sampler = ConsecutiveClips(num_views=3, num_frames=9, frame_stride=1, gap_frames=2, end_policy="error")
    assert sampler.min_frames == 31
    datamodule = module(videos, cache, sampler=sampler, batch_size=2)
    assert len(datamodule.train_rows()) + len(datamodule.too_short) == 11
    assert len(datamodule.too_short) == 4
    assert len(batches(datamodule, 1)) == 3


def test_batch_larger_than_the_data_is_refused(videos: Path, cache: Path) -> None:
    with pytest.raises(InputError, match=r"batch_size=12 .* larger than the 11 usable .* Use batch_size=11 or less"):
        module(videos, cache, batch_size=12).check_enough(1)


class FailingReader(DecordReader):
    """Cannot read some videos."""

    def __init__(self, path: Path, *, bad: frozenset[str], table: StreamTable | None = None) -> None:
        if path.name in bad:
            raise UnreadableVideo("made to fail")
        super().__init__(path, table=table)


def test_an_unreadable_video_is_replaced_by_rule_and_named(videos: Path, cache: Path) -> None:
    reader = functools.partial(FailingReader, bad=frozenset({"video_02.mp4", "video_05.mp4"}))
    runs = [batches(module(videos, cache, decoder=DirectDecoder(reader), num_workers=n), 2) for n in (0, 2)]
    assert all(same(a, b) for a, b in zip(*runs, strict=True))
    failed = [failure for batch in runs[0] for failure in batch.failures]
    assert failed
    assert {failure.row for failure in failed} <= {2, 5}
    assert {failure.reason for failure in failed} == {"made to fail"}
    assert not any(row in (2, 5) for batch in runs[0] for row in batch.rows.tolist())


def test_all_videos_unreadable_ends_with_their_names(videos: Path, cache: Path) -> None:
    everything = frozenset(f"video_{number:02d}.mp4" for number in range(11))
    with pytest.raises(RuntimeError, match=r"10 videos in a row could not be read.*made to fail"):
        batches(module(videos, cache, decoder=DirectDecoder(functools.partial(FailingReader, bad=everything))), 1)


def test_evaluation_reports_an_unreadable_video_and_replaces_none(videos: Path, cache: Path) -> None:
    reader = functools.partial(FailingReader, bad=frozenset({"video_02.mp4"}))
    datamodule = module(videos, cache, decoder=DirectDecoder(reader))
    views = {"own": View(datamodule.sampler, datamodule.transform)}
    loader = datamodule.evaluation_views_loader(datamodule.readable_rows("train"), views, batch_size=4)
    got = [batch["own"] for batch in loader]
    rows = [row for batch in got for row in batch.rows.tolist()]
    assert rows == [row for row in range(11) if row != 2]
    assert [failure.row for batch in got for failure in batch.failures] == [2]


def test_splits_are_drawn_by_group(tmp_path: Path, cache: Path) -> None:
    root = labelled_folder(tmp_path / "labelled")
    datamodule = module(root, cache, labels=str(root / "labels.csv"), test_fraction=0.4)
    groups = np.array(datamodule.manifest.column("group"))
    test, train = set(groups[datamodule.splits["test"]]), set(groups[datamodule.splits["train"]])
    assert len(test) == 2
    assert test.isdisjoint(train)
    assert test | train == {"0", "1", "2", "3", "4"}
    again = module(root, cache, labels=str(root / "labels.csv"), test_fraction=0.4)
    assert np.array_equal(again.splits["test"] if again.manifest else [], datamodule.splits["test"])


def test_test_groups_name_the_test_part(tmp_path: Path, cache: Path) -> None:
    root = labelled_folder(tmp_path / "labelled")
    datamodule = module(root, cache, labels=str(root / "labels.csv"), test_groups=[1, "3"])
    groups = np.array(datamodule.manifest.column("group"))
    assert set(groups[datamodule.splits["test"]]) == {"1", "3"}
    with pytest.raises(InputError, match=r"test_groups names \['9'\]"):
        module(root, cache, labels=str(root / "labels.csv"), test_groups=[9]).setup()


def test_unknown_label_column_is_refused(tmp_path: Path, cache: Path) -> None:
    root = labelled_folder(tmp_path / "labelled")
    with pytest.raises(InputError, match=r"dataset.label='motion' is not a label column.*\['label'\]"):
        module(root, cache, labels=str(root / "labels.csv"), label="motion").setup()
