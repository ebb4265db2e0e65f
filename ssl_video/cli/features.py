"""The data of an evaluation and the features of its splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from ssl_video.backbones.base import Backbone
from ssl_video.cli.extraction import extract_rows
from ssl_video.cli.parts import build_datamodule
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.evaluation.clips import NORMAL, ClipSpec, Part
from ssl_video.evaluation.extract import Extracted
from ssl_video.evaluation.features import FeatureSet
from ssl_video.utils.config import build
from ssl_video.utils.errors import InputError


def build_evaluation_data(config: DictConfig, *, num_clips: int = 1) -> VideoDataModule:
    """The data set, seen through evenly spread clips."""
    sampler = UniformClips(num_views=num_clips, num_frames=config.num_frames, frame_stride=config.frame_stride)
    return build_datamodule(config, sampler=sampler, transform=build(config.input_transform))


def asked_split(datamodule: VideoDataModule) -> str:
    """The split that is asked about: test, or val where there is no test; drawn where there are no labels and no split.

    Raises:
        InputError: no split but train has a video that can be read.
    """
    if datamodule.label is None and not any(len(datamodule.splits[split]) for split in ("val", "test")):
        datamodule.draw_test_part()
        rank_zero_only(print)(
            f"No labels and no split: {len(datamodule.splits['test'])} of the "
            f"{sum(map(len, datamodule.splits.values()))} videos are drawn as a test part (dataset.test_fraction, "
            "dataset.split_seed); a checkpoint that was pre-trained on this folder has seen them."
        )
    for split in ("test", "val"):
        if len(datamodule.readable_rows(split)):
            if split == "val":
                rank_zero_only(print)("There is no test split: asking on val.")
            return split
    raise InputError(f"{datamodule.name} has neither test nor val videos that can be read; see dataset.test_fraction.")


def extract(
    config: DictConfig,
    datamodule: VideoDataModule,
    backbones: Mapping[str, Backbone],
    wanted: Mapping[Part, Sequence[ClipSpec]],
    split: str,
) -> dict[Part, Extracted]:
    """Features of the parts, in one pass over the videos of each.

    Where ``trainer.devices`` asks for several processes, the first call starts them and each call divides the videos
    among them. All of them get the features; what follows is for the first (``utils.distributed.rank() == 0``) alone.

    Args:
        config: of the evaluation.
        datamodule: the data.
        backbones: by name.
        wanted: clips by part.
        split: the split that is the test part.
    """
    splits: dict[Part, str] = {"train": "train", "test": split}
    return {
        part: extract_rows(
            config,
            datamodule,
            backbones,
            specs,
            datamodule.readable_rows(splits[part]),
            title=f"features of {splits[part]}",
        )
        for part, specs in wanted.items()
    }


def feature_set(
    extracted: Extracted, backbone: str, specs: Mapping[str, ClipSpec], *, labelled_only: bool = True
) -> FeatureSet:
    """One backbone's features as a protocol wants them.

    Args:
        extracted: holds them.
        backbone: its name.
        specs: clips by the protocol's names, ``NORMAL`` among them.
        labelled_only: leaves out videos without a label.
    """
    kept = torch.ones_like(extracted.labels, dtype=torch.bool) if not labelled_only else extracted.labels >= 0
    # Features stay in their file unless some of them must be left out.
    all_kept = bool(kept.all())
    features = {
        name: extracted.features[backbone, spec] if all_kept else extracted.features[backbone, spec][kept]
        for name, spec in specs.items()
    }
    places = kept.nonzero()[:, 0].tolist()
    return FeatureSet(
        features=features.pop(NORMAL),
        labels=extracted.labels[kept],
        video_ids=[extracted.video_ids[place] for place in places],
        groups=[extracted.groups[place] for place in places],
        altered=features,
        paths=[extracted.paths[place] for place in places],
        too_short={
            name: extracted.too_short[spec][kept] for name, spec in specs.items() if spec in extracted.too_short
        },
    )
