"""The data of an evaluation and the features of its splits."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from ssl_video.backbones.base import Backbone
from ssl_video.cli.parts import build_datamodule
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.evaluation.extract import Extracted, extract_features
from ssl_video.evaluation.features import EvaluationProtocol, ProtocolResult
from ssl_video.utils.config import build
from ssl_video.utils.errors import InputError


def build_evaluation_data(config: DictConfig, *, num_clips: int) -> VideoDataModule:
    """The data set, seen through evenly spread clips."""
    sampler = UniformClips(num_views=num_clips, num_frames=config.num_frames, frame_stride=config.frame_stride)
    return build_datamodule(config, sampler=sampler, transform=build(config.input_transform))


def asked_split(datamodule: VideoDataModule) -> str:
    """The split that is asked about: test, or val where there is no test.

    Raises:
        InputError: no labels, or neither split.
    """
    if not datamodule.class_names:
        raise InputError(
            f"{datamodule.name} has no labels, and a protocol asks for them; give dataset.labels=FILE.csv with the "
            "columns path and label, or put the videos into one sub-folder per class."
        )
    for split in ("test", "val"):
        if len(datamodule.readable_rows(split)):
            if split == "val":
                print("There is no test split: asking on val.")
            return split
    raise InputError(f"{datamodule.name} has neither test nor val videos that can be read; see dataset.test_fraction.")


def extract_split(
    datamodule: VideoDataModule, backbones: dict[str, Backbone], split: str, device: torch.device
) -> Extracted:
    """Features of all readable videos of a split."""
    loader = datamodule.evaluation_loader(split, sampler=datamodule.sampler, transform=datamodule.transform)
    return extract_features(
        backbones,
        loader,
        device=device,
        total=len(loader),
        title=f"features of {split}",
    )


def ask(
    protocol: EvaluationProtocol, datamodule: VideoDataModule, name: str, train: Extracted, test: Extracted
) -> ProtocolResult:
    """What a protocol says of one backbone."""
    video_ids, groups = datamodule.manifest.column("video_id"), datamodule.manifest.column("group")
    sets = [part.feature_set(name, video_ids=video_ids, groups=groups) for part in (train, test)]
    return protocol(*sets, num_classes=len(datamodule.class_names))
