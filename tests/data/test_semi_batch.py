"""A semi-supervised batch through the real reader: both speeds of one read, hidden labels, any workers, any stop."""

import functools
import itertools
from collections.abc import Sequence
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
from ssl_video.data.readers.base import Cut
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.stream import StreamTable
from ssl_video.data.samplers.consecutive_clips import ConsecutiveClips
from ssl_video.data.samplers.segment_frames import SegmentFrames
from ssl_video.data.semi_batch import SemiBatch
from ssl_video.data.semi_part import SemiPart
from ssl_video.data.sources import folder
from ssl_video.data.transforms.multi_scale_crop import MultiScaleCrop
from ssl_video.data.transforms.resize_center_crop import ResizeCenterCrop
from ssl_video.utils.errors import InputError, UnreadableVideo
from support.folders import numbered_folder
from support.videos import read_frame_numbers

PLAIN = ResizeCenterCrop(resize=40, crop=40, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
VIDEOS = 24

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = numbered_folder(tmp_path_factory.mktemp("numbered"), videos=VIDEOS)
    lines = [f"video_{number:02d}.mp4,{'ab'[number % 2]}" for number in range(VIDEOS)]
    (root / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def part(transform: Any = PLAIN, **changes: Any) -> SemiPart:
    views = {
        "fast": View(SegmentFrames(num_frames=6), transform),
        "slow": View(SegmentFrames(num_frames=3), transform),
    }
    arguments: dict[str, Any] = {"views": views, "label_fraction": 0.25, "unlabeled_ratio": 3.0, "epoch_by": "shorter"}
    return SemiPart(**(arguments | changes))


def module(root: Path, cache: Path, *, semi: SemiPart | None = None, **changes: Any) -> VideoDataModule:
    arguments: dict[str, Any] = {
        "name": "folder",
        "source": folder,
        "root": str(root),
        "labels": str(root / "labels.csv"),
        "test_groups": [],
        "sampler": SegmentFrames(num_frames=6),
        "transform": PLAIN,
        "decoder": DirectDecoder(DecordReader),
        "batch_size": 2,
        "seed": 3,
        "cache_dir": cache,
        "num_workers": 0,
    }
    return VideoDataModule(**(arguments | changes), semi=semi or part())


def batches(datamodule: VideoDataModule, number: int) -> list[SemiBatch]:
    return list(datamodule.training_loader(number))


def frame_numbers(clips: ClipBatch) -> list[int]:
    frames = (clips.clips.permute(0, 1, 3, 4, 5, 2) * 255).round().byte().flatten(0, 2).numpy()
    return read_frame_numbers(frames)


def same(a: SemiBatch, b: SemiBatch) -> bool:
    parts = [(a.labeled, b.labeled), *((a.unlabeled[name], b.unlabeled[name]) for name in ("fast", "slow"))]
    names = ("clips", "indices", "labels", "rows", "positions")
    equal = all(torch.equal(getattr(x, name), getattr(y, name)) for x, y in parts for name in names)
    return equal and a.epoch == b.epoch and torch.equal(a.hidden_labels, b.hidden_labels)


def test_parts_of_a_batch(videos: Path, cache: Path) -> None:
    datamodule = module(videos, cache)
    for batch in batches(datamodule, 6):
        assert batch.labeled.clips.shape == (2, 1, 3, 6, 40, 40)
        assert batch.unlabeled["fast"].clips.shape == (6, 1, 3, 6, 40, 40)
        assert batch.unlabeled["slow"].clips.shape == (6, 1, 3, 3, 40, 40)
        assert torch.equal(batch.unlabeled["fast"].rows, batch.unlabeled["slow"].rows)
        assert set(batch.labeled.rows.tolist()).isdisjoint(batch.unlabeled["fast"].rows.tolist())
        assert (len(batch), batch.num_clips, batch.failures, batch.flags) == (8, 14, (), {})
    assert datamodule.frames_per_batch() == 2 * 6 + 6 * 9


def test_indices_are_the_frames_in_the_pixels_of_every_view(videos: Path, cache: Path) -> None:
    for batch in batches(module(videos, cache), 4):
        for clips in (batch.labeled, *batch.unlabeled.values()):
            assert frame_numbers(clips) == clips.indices.flatten().tolist()


def test_speeds_are_drawn_apart(videos: Path, cache: Path) -> None:
    """The slow view's frames are not every other one of the fast view's."""
    chosen = batches(module(videos, cache), 6)
    fast = torch.cat([batch.unlabeled["fast"].indices for batch in chosen])
    slow = torch.cat([batch.unlabeled["slow"].indices for batch in chosen])
    contained = (slow[..., None] == fast[..., None, :]).any(dim=-1).all(dim=-1)
    assert contained.float().mean() < 0.5


def test_labels_are_seen_of_the_labelled_part_only(videos: Path, cache: Path) -> None:
    datamodule = module(videos, cache)
    for batch in batches(datamodule, 6):
        assert batch.labeled.labels.tolist() == [row % 2 for row in batch.labeled.rows.tolist()]
        assert all((view.labels == -1).all() for view in batch.unlabeled.values())
        assert batch.hidden_labels.tolist() == [row % 2 for row in batch.unlabeled["fast"].rows.tolist()]
    assert datamodule.label_split is not None
    assert len(datamodule.label_split.labeled) == 6  # of 12 of each class, 3 keep their label


class CountingReader(DecordReader):
    """Counts how often a file was opened and read."""

    opened = 0
    reads = 0

    def __init__(self, path: Path, *, table: StreamTable | None = None) -> None:
        type(self).opened += 1
        super().__init__(path, table=table)

    def read_cuts(self, cuts: Sequence[Cut]) -> list[np.ndarray]:
        type(self).reads += 1
        return super().read_cuts(cuts)


@pytest.mark.parametrize("sizes", [(40, 40), (40, 20)])
def test_all_views_come_from_one_read(videos: Path, cache: Path, sizes: tuple[int, int]) -> None:
    """Two labelled and six unlabelled videos are eight files, opened and read once, whatever sizes the views have."""
    CountingReader.opened = CountingReader.reads = 0
    views = {
        name: View(SegmentFrames(num_frames=3), ResizeCenterCrop(resize=size, crop=20))
        for name, size in zip(("fast", "slow"), sizes, strict=True)
    }
    batches(module(videos, cache, semi=part(views=views), decoder=DirectDecoder(CountingReader)), 1)
    assert (CountingReader.opened, CountingReader.reads) == (8, 8)


def test_workers_change_nothing(videos: Path, cache: Path) -> None:
    crop = MultiScaleCrop(size=24)
    runs = [batches(module(videos, cache, semi=part(crop), transform=crop, num_workers=n), 7) for n in (0, 2)]
    assert [batch.epoch for batch in runs[0]] == [0, 0, 0, 1, 1, 1, 2]
    assert all(same(a, b) for a, b in zip(*runs, strict=True))


def position(datamodule: VideoDataModule, done: int) -> None:
    progress = SimpleNamespace(current=SimpleNamespace(processed=done))
    datamodule.trainer = SimpleNamespace(  # type: ignore[assignment]
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    )


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_stopping_after_any_batch_and_going_on_gives_the_same_pixels(videos: Path, cache: Path, stop: int) -> None:
    expected = batches(module(videos, cache), 7)
    first = module(videos, cache)
    seen = list(itertools.islice(first.training_loader(7), stop))
    position(first, stop)
    second = module(videos, cache)
    second.load_state_dict(first.state_dict())
    assert all(same(a, b) for a, b in zip([*seen, *batches(second, 7)], expected, strict=True))


def test_going_on_with_other_labels_is_refused(videos: Path, cache: Path) -> None:
    first = module(videos, cache)
    position(first, 2)
    with pytest.raises(InputError, match=r"label_fraction, label_seed or label_split_file has changed"):
        module(videos, cache, semi=part(label_seed=1)).load_state_dict(first.state_dict())


class FailingReader(DecordReader):
    """Cannot read some videos."""

    def __init__(self, path: Path, *, bad: frozenset[str], table: StreamTable | None = None) -> None:
        if path.name in bad:
            raise UnreadableVideo("made to fail")
        super().__init__(path, table=table)


def test_an_unreadable_video_is_replaced_from_its_own_part_and_counted_once(videos: Path, cache: Path) -> None:
    plain = module(videos, cache)
    plain.setup()
    assert plain.label_split is not None
    bad = [int(plain.label_split.labeled[0]), int(plain.label_split.unlabeled[0])]
    reader = functools.partial(FailingReader, bad=frozenset(f"video_{row:02d}.mp4" for row in bad))
    labeled, unlabeled = (set(rows.tolist()) for rows in (plain.label_split.labeled, plain.label_split.unlabeled))
    chosen = batches(module(videos, cache, decoder=DirectDecoder(reader)), 9)
    for batch in chosen:
        assert set(batch.labeled.rows.tolist()) <= labeled - {bad[0]}
        assert set(batch.unlabeled["slow"].rows.tolist()) <= unlabeled - {bad[1]}
        assert torch.equal(batch.unlabeled["fast"].rows, batch.unlabeled["slow"].rows)
    failed = [failure.row for batch in chosen for failure in batch.failures]
    assert set(failed) == set(bad)
    assert failed.count(bad[0]) <= 3 + 2  # once an epoch, and as a replacement that failed again


def test_labelled_videos_among_the_unlabelled(videos: Path, cache: Path) -> None:
    datamodule = module(videos, cache, semi=part(include_labeled_in_unlabeled=True, epoch_by="unlabeled"))
    chosen = batches(datamodule, datamodule.batches_per_epoch(1))
    assert sorted(row for batch in chosen for row in batch.unlabeled["fast"].rows.tolist()) == list(range(VIDEOS))
    assert all((batch.unlabeled["fast"].labels == -1).all() for batch in chosen)


def test_a_stage_without_labels_takes_every_video(videos: Path, cache: Path) -> None:
    datamodule = module(videos, cache, semi=part(stage="pretrain"), labels=None)
    assert datamodule.batches_per_epoch(1) == 4
    chosen = batches(datamodule, 4)
    assert sorted(row for batch in chosen for row in batch.unlabeled["fast"].rows.tolist()) == list(range(VIDEOS))
    assert all(len(batch.labeled) == 0 and len(batch) == 6 for batch in chosen)
    assert all((batch.hidden_labels == -1).all() for batch in chosen)


def test_moving_a_batch(videos: Path, cache: Path) -> None:
    (batch,) = batches(module(videos, cache), 1)
    moved = batch.to("meta")
    tensors = (moved.labeled.clips, moved.unlabeled["slow"].rows, moved.hidden_labels)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_what_does_not_fit_is_refused(videos: Path, cache: Path) -> None:
    with pytest.raises(InputError, match=r"folder has no labels.*method.stage=pretrain"):
        module(videos, cache, labels=None).setup()
    with pytest.raises(InputError, match=r"batch_size=7 .* takes 7 labelled videos, but folder has 6 .*batch_size=6"):
        module(videos, cache, batch_size=7).check_enough(1)
    with pytest.raises(
        InputError, match=r"on 3 device\(s\) takes 36 unlabelled videos, but folder has 18 .*=1 or less"
    ):
        module(videos, cache, batch_size=2, semi=part(unlabeled_ratio=6.0)).check_enough(3)
    with pytest.raises(InputError, match=r"folder has 0 for training .*Lower label_fraction"):
        module(videos, cache, semi=part(label_fraction=1.0)).check_enough(1)
    with pytest.raises(InputError, match=r"unlabeled_ratio=0.1 with batch_size=2 leaves no unlabelled"):
        module(videos, cache, semi=part(unlabeled_ratio=0.1)).check_enough(1)
    with pytest.raises(InputError, match=r"semi.views.fast.sampler.end_policy=error"):
        part(views={"fast": View(ConsecutiveClips(end_policy="error"), PLAIN)})
    with pytest.raises(InputError, match=r"semi\.views is empty"):
        part(views={})
    with pytest.raises(InputError, match=r"semi\.epoch_by=0"):
        part(epoch_by=0)


def test_runs_without_a_semi_part_are_as_before(videos: Path, cache: Path) -> None:
    """The draw of a sample has not moved: frames of one clip follow from (seed, epoch, position, attempt)."""
    datamodule = VideoDataModule(
        name="folder",
        source=folder,
        root=str(videos),
        sampler=SegmentFrames(num_frames=6),
        transform=PLAIN,
        decoder=DirectDecoder(DecordReader),
        batch_size=4,
        seed=3,
        cache_dir=cache,
        num_workers=0,
    )
    batch = next(iter(datamodule.training_loader(1)))
    assert isinstance(batch, ClipBatch)
    for place, row in enumerate(batch.rows.tolist()):
        rng = np.random.default_rng([3, 0, place, 0])
        expected = datamodule.sampler(datamodule.manifest.segment(row), rng).indices
        assert torch.equal(batch.indices[place], torch.from_numpy(expected))
