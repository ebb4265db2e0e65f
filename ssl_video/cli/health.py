"""Building the callbacks that a configuration chooses, and the labelled videos of online kNN."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from omegaconf import DictConfig

from ssl_video.callbacks.online_knn import OnlineKNN
from ssl_video.data.batch import ClipBatch
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.dataset import View
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.utils.config import build, compose_checked
from ssl_video.utils.errors import InputError

VIEW = "clips"


def build_callbacks(config: DictConfig, datamodule: VideoDataModule) -> list[pl.Callback]:
    """The callbacks of ``config.callbacks``; online kNN first, so that a bar on its value is of the same step."""
    if "online_knn" in (config.callbacks or {}) and "Sharded" in config.strategy.get("_target_", ""):
        raise InputError(
            "callbacks.online_knn encodes videos on each process by itself, which no process can where the network is "
            "sharded (strategy=fsdp); leave online_knn out of callbacks, or take strategy=ddp."
        )
    nodes = sorted((config.callbacks or {}).items(), key=lambda item: item[0] != "online_knn")
    given: dict[str, Any] = {"config": config, "datamodule": datamodule}
    return [build(node, **(given if name == "online_knn" else {})) for name, node in nodes]


class SideSet:
    """Labelled videos as an evaluation sees them, read apart from the training's loader.

    Args:
        datamodule: of its own, with evenly spread clips and the input transform.
        query_share: of the training videos that are asked, by whole groups, where the data set has no val part; the
            test part is never looked at.
        max_bank_videos: that vote.
        max_query_videos: that are asked.
        batch_size: videos.
    """

    def __init__(
        self,
        datamodule: VideoDataModule,
        *,
        query_share: float,
        max_bank_videos: int,
        max_query_videos: int,
        batch_size: int,
    ) -> None:
        self.datamodule = datamodule
        self.batch_size = batch_size
        self.num_classes = len(datamodule.class_names)
        train, queries = self._labelled("train"), self._labelled("val")
        if not len(queries) and len(train):
            is_query = drawn_units(datamodule.manifest.unit_ranks()[train], query_share)
            train, queries = train[~is_query], train[is_query]
        self.bank = drawn(train, max_bank_videos)
        self.queries = drawn(queries, max_query_videos)
        classes = len(np.unique(datamodule.labels[self.bank]))
        if classes < 2 or not len(self.queries):
            raise InputError(
                f"callbacks.online_knn needs labelled videos of 2 classes or more to ask about: of {datamodule.name} "
                f"it has {len(self.bank)} videos of {classes} classes that vote and {len(self.queries)} to ask. Give "
                "dataset.labels=FILE.csv or dataset.label=NAME, name another data set by "
                "callbacks.online_knn.dataset=NAME, or leave online_knn out of callbacks."
            )

    def _labelled(self, split: str) -> NDArray[np.int64]:
        rows = self.datamodule.readable_rows(split)
        return rows[self.datamodule.labels[rows] >= 0]

    def batches(self, rows: NDArray[np.int64]) -> Iterator[ClipBatch]:
        """Each of these rows once, in order; unreadable ones are left out."""
        if not len(rows):
            return
        views = {VIEW: View(self.datamodule.sampler, self.datamodule.transform)}
        for batch in self.datamodule.evaluation_views_loader(rows, views, batch_size=self.batch_size):
            yield batch[VIEW]


def drawn_units(units: NDArray[Any], share: float) -> NDArray[np.bool_]:
    """Which of ``[N]`` videos belong to a share of their units, one unit at least and not all, drawn with seed 0."""
    names = np.unique(units)
    number = min(max(1, round(share * len(names))), len(names) - 1)
    return np.isin(units, np.random.default_rng(0).permutation(names)[:number])


def drawn(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many rows, in their order, drawn with seed 0."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def online_knn(
    *,
    config: DictConfig,
    datamodule: VideoDataModule,
    every_epochs: float = 5.0,
    every_steps: int | None = None,
    k: int = 20,
    temperature: float = 0.07,
    num_clips: int = 1,
    query_share: float = 0.3,
    max_bank_videos: int = 2000,
    max_query_videos: int = 500,
    dataset: str | None = None,
    root: str | None = None,
    labels: str | None = None,
    label: str | None = None,
) -> OnlineKNN:
    """Online kNN of a training run.

    Args:
        config: of the run.
        datamodule: of the run; its clips' length and stride are taken.
        every_epochs: as ``OnlineKNN``.
        every_steps: likewise.
        k: likewise.
        temperature: likewise.
        num_clips: evenly spread clips of each video.
        query_share: as ``SideSet``.
        max_bank_videos: likewise.
        max_query_videos: likewise.
        dataset: another data set: a name of ``conf/dataset``, or a manifest's file; None takes the run's own.
        root: ``dataset.root`` of that.
        labels: ``dataset.labels`` of that.
        label: label column; None takes that of the data set.

    Raises:
        InputError: no labels, or a data set that is not there.
    """
    # Imported here: that module imports this one.
    from ssl_video.cli.parts import build_backbone, build_datamodule

    if dataset is None and (root is not None or labels is not None):
        raise InputError(
            f"callbacks.online_knn.root={root} and labels={labels} go with callbacks.online_knn.dataset=NAME; those of "
            "the run's own data set are dataset.root and dataset.labels."
        )
    own = config if dataset is None else side_config(config, dataset, root=root, labels=labels)
    if label is not None:
        own = own.copy()
        own.dataset.label = label
    sampler = datamodule.sampler
    seen = UniformClips(num_views=num_clips, num_frames=sampler.num_frames, frame_stride=sampler.frame_stride)
    videos = SideSet(
        build_datamodule(own, sampler=seen, transform=build(config.input_transform)),
        query_share=query_share,
        max_bank_videos=max_bank_videos,
        max_query_videos=max_query_videos,
        batch_size=config.batch_size,
    )
    return OnlineKNN(
        videos=videos,
        make_random=partial(build_backbone, config),
        every_epochs=every_epochs,
        every_steps=every_steps,
        k=k,
        temperature=temperature,
    )


def side_config(config: DictConfig, dataset: str, *, root: str | None, labels: str | None) -> DictConfig:
    """The configuration of a run on another data set, read as that data set is, as carefully as in this run.

    Raises:
        InputError: no such data set.
    """
    from ssl_video.cli.parts import PROVIDED, TrainSettings

    named = dataset if not dataset.endswith(".parquet") else f"manifest dataset.source.file={dataset}"
    overrides = [*f"dataset={named}".split(" ", 1), f"dataset.num_workers={config.dataset.num_workers}"]
    overrides += [f"dataset.{key}={value}" for key, value in (("root", root), ("labels", labels)) if value is not None]
    composed = compose_checked("train", overrides, provided=PROVIDED, settings=TrainSettings)
    for key in ("isolate", "deadline_seconds", "recycle_above_mib"):
        composed.reader[key] = config.reader[key]
    composed.batch_size, composed.seed, composed.cache_dir = config.batch_size, config.seed, config.cache_dir
    return composed
