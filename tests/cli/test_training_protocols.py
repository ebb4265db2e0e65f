"""Training protocols on real files: what they are given, and that nothing but the seed decides the outcome."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch.optim import SGD

from ssl_video.cli.parts import PROVIDED, EvaluateSettings, build_backbone, build_datamodule
from ssl_video.cli.training_protocols import (
    VideoTrainingData,
    describe_time,
    in_words,
    run_training_protocol,
    tell_training_time,
)
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.samplers.random_clips import RandomClips
from ssl_video.data.samplers.segment_frames import SegmentFrames
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.data.transforms.contrastive import ContrastiveTransform
from ssl_video.data.transforms.resize_center_crop import ResizeCenterCrop
from ssl_video.evaluation.features import ProtocolResult
from ssl_video.evaluation.finetune import Finetune
from ssl_video.evaluation.training import Seconds
from ssl_video.optim.schedules import Constant
from ssl_video.utils.config import build, compose_checked
from ssl_video.utils.errors import InputError
from support.folders import labelled_folder

TRAIN, TEST = 12, 6
RANDOM = ("checkpoint=random", "backbone=r3d_tiny", "input_transform.resize=32", "input_transform.crop=32")
TINY = ("num_frames=4", "frame_stride=1", "evaluation.batch_size=4", "evaluation.test_clips=2")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = labelled_folder(tmp_path_factory.mktemp("labelled"), videos=TRAIN + TEST)
    rows = [
        f"video_{number:02d}.mp4,{('dark', 'bright')[number % 2]},{'train' if number < TRAIN else 'test'}"
        for number in range(TRAIN + TEST)
    ]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    return root


def compose(videos: Path, *overrides: str) -> DictConfig:
    data = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]
    words = [*RANDOM, *data, f"cache_dir={videos.parent / 'cache'}", "dataset.num_workers=0", *overrides]
    return compose_checked("evaluate", words, provided=PROVIDED, settings=EvaluateSettings)


def data_of(config: DictConfig) -> VideoDataModule:
    sampler = UniformClips(num_views=1, num_frames=config.num_frames, frame_stride=config.frame_stride)
    return build_datamodule(config, sampler=sampler, transform=build(config.input_transform))


def run(videos: Path, *overrides: str) -> ProtocolResult:
    config = compose(videos, *TINY, *overrides)
    backbones = {"random": build_backbone(config)}
    return run_training_protocol(config, build(config.evaluation), data_of(config), backbones, "test")["random"]


@pytest.mark.parametrize("evaluation", ["finetune", "linear_probe_in_loop"])
def test_the_time_is_told_and_nothing_is_changed(
    videos: Path, evaluation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose(videos, *TINY, f"evaluation={evaluation}")
    backbones = {"random": build_backbone(config)}
    before = {name: tensor.clone() for name, tensor in backbones["random"].state_dict().items()}
    tell_training_time(config, build(config.evaluation), data_of(config), backbones, "test")
    assert capsys.readouterr().out.startswith(f"{evaluation}: about ")
    assert all(tensor.equal(before[name]) for name, tensor in backbones["random"].state_dict().items())


def protocol(**changes: Any) -> Finetune:
    settings: dict[str, Any] = {
        "train_sampler": RandomClips(num_views=1, num_frames=3, frame_stride=2),
        "train_transform": ContrastiveTransform(size=24),
        "optimizer": partial(SGD, lr=0.1),
        "scheduler": Constant,
        "batch_size": 4,
        "epochs": 1.0,
    }
    return Finetune(**(settings | changes))


def seen(videos: Path, **changes: Any) -> VideoTrainingData:
    config = compose(videos)
    transform = ResizeCenterCrop(resize=40, crop=32)
    return VideoTrainingData(data_of(config), protocol(**changes), input_transform=transform, split="test")


@pytest.mark.parametrize("evaluation", ["finetune", "linear_probe_in_loop"])
def test_dark_and_bright_are_told_apart(videos: Path, evaluation: str) -> None:
    result = run(videos, f"evaluation={evaluation}", "evaluation.epochs=8")
    assert result.metrics["top1"] == 1.0
    assert result.predictions is not None
    assert len(result.predictions) == len(result.per_video["top1"]) == TEST
    assert result.settings["steps"] == 24


@pytest.mark.slow
def test_workers_do_not_matter(videos: Path) -> None:
    results = [
        run(videos, "evaluation=finetune", "evaluation.epochs=2", f"dataset.num_workers={workers}")
        for workers in (0, 2)
    ]
    assert results[0].details == results[1].details
    assert results[0].metrics == results[1].metrics


def test_all_labelled_videos_of_each_part_are_given(videos: Path) -> None:
    data = seen(videos)
    assert (len(data.train), len(data.test)) == (TRAIN, TEST)
    assert data.test.labels.tolist() == [1, 0] * 3  # bright, dark
    assert set(data.train.rows.tolist()).isdisjoint(data.test.rows.tolist())


def test_training_batches_are_whole_and_follow_from_the_seed(videos: Path) -> None:
    data = seen(videos)

    def batches(seed: int) -> list[Any]:
        return list(data.train_batches(data.train.rows[:10], batch_size=4, num_batches=5, seed=seed))

    first, again, other = batches(0), batches(0), batches(1)
    assert [batch.clips.shape for batch in first] == [torch.Size([4, 1, 3, 3, 24, 24])] * 5
    assert all(torch.equal(a.clips, b.clips) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.clips, b.clips) for a, b in zip(first, other, strict=True))
    assert {row for batch in first for row in batch.rows.tolist()} <= set(data.train.rows[:10].tolist())
    assert len({row for batch in first[:2] for row in batch.rows.tolist()}) == 8  # none twice in an epoch


@pytest.mark.parametrize(("crops", "views"), [("centre", 2), ("three", 6), ("ten", 20)])
def test_test_clips_have_the_training_length_and_come_once_in_order(videos: Path, crops: Any, views: int) -> None:
    data = seen(videos)
    batches = list(data.test_batches(data.test.rows, num_clips=2, crops=crops, batch_size=4))
    assert [len(batch) for batch in batches] == [4, 2]
    assert batches[0].clips.shape == (4, views, 3, 3, 32, 32)
    assert [row for batch in batches for row in batch.rows.tolist()] == data.test.rows.tolist()
    steps = np.diff(batches[0].indices.numpy(), axis=2)
    assert np.all(steps == 2)


def test_the_protocols_own_test_views_win(videos: Path) -> None:
    own = SegmentFrames(num_frames=5, centre=True)
    data = seen(videos, test_sampler=own, test_clips=1, test_transform=ResizeCenterCrop(resize=30, crop=20))
    batch = next(iter(data.test_batches(data.test.rows, num_clips=1, crops="centre", batch_size=2)))
    assert batch.clips.shape == (2, 1, 3, 5, 20, 20)
    with pytest.raises(ValueError, match=r"test_clips=10 must equal test_sampler\.num_views=1"):
        protocol(test_sampler=own)


def test_crops_of_a_transform_that_gives_one_are_refused(videos: Path) -> None:
    data = seen(videos, test_transform=ContrastiveTransform(size=24))
    with pytest.raises(InputError, match="three of each clip cannot be had of ContrastiveTransform"):
        data.test_batches(data.test.rows, num_clips=1, crops="three", batch_size=2)


def test_videos_without_labels_are_not_trained_on(videos: Path) -> None:
    config = compose(videos, *TINY, "dataset.labels=null", "evaluation=finetune")
    asked = partial(run_training_protocol, config, build(config.evaluation), data_of(config))
    with pytest.raises(InputError, match="the train part has no labelled videos"):
        asked({"random": build_backbone(config)}, "test")


def test_a_file_that_has_gone_is_replaced_in_training_and_told_in_the_test(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path, videos=8)
    rows = [f"video_{n:02d}.mp4,{('dark', 'bright')[n % 2]},{'train' if n < 6 else 'test'}" for n in range(8)]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    config = compose(root, *TINY, "evaluation=finetune", "evaluation.epochs=2")
    datamodule = data_of(config)
    datamodule.setup()
    for name in ("video_01.mp4", "video_07.mp4"):
        (root / name).unlink()
    backbones = {"random": build_backbone(config)}
    result = run_training_protocol(config, build(config.evaluation), datamodule, backbones, "test")["random"]
    assert result.details["replaced_videos"] >= 1
    assert len(result.details["unreadable_rows"]) == 1
    assert len(result.per_video["top1"]) == 1


def test_time_is_told_for_all_that_will_be_trained() -> None:
    seconds = Seconds(per_step=0.5, steps=100, testing=10.0)
    assert seconds.total == 60.0
    alone = describe_time("finetune", seconds, num_backbones=1, num_splits=1)
    assert alone == "finetune: about 60 s (100 steps of 0.5 s and 10 s of testing)"
    all_of_it = describe_time("finetune", seconds, num_backbones=2, num_splits=3)
    assert all_of_it == "finetune: about 6.0 min (100 steps of 0.5 s and 10 s of testing x 2 backbones x 3 splits)"


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (99.0, "99 s"), (150.0, "2.5 min"), (43560.0, "12.1 h")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
