"""The semi-supervised part of a run's data: which videos keep their label, and how the others are seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from ssl_video.data.dataset import View
from ssl_video.data.label_split import LabelSplit, Rows, split_labels
from ssl_video.data.manifest import Manifest
from ssl_video.data.semi_order import EpochBy
from ssl_video.utils.errors import InputError


class SemiPart:
    """What a data module needs beside the labelled clips.

    Args:
        views: how each view of an unlabelled video is made, by name; all are read from the file at once.
        label_fraction: share of each class that keeps its labels.
        label_seed: decides which.
        label_split_file: a list of the labelled videos instead; see ``data/label_split.py``.
        allow_missing_classes: a class may be left without any label.
        unlabeled_ratio: unlabelled videos for each labelled one of a batch.
        include_labeled_in_unlabeled: labelled videos are among the unlabelled ones too, without their label (FixMatch).
        epoch_by: what an epoch is; see ``data/semi_order.py``.
        stage: ``pretrain`` takes all training videos as unlabelled and none as labelled.
    """

    def __init__(
        self,
        *,
        views: Mapping[str, View],
        label_fraction: float,
        label_seed: int = 0,
        label_split_file: str | None = None,
        allow_missing_classes: bool = False,
        unlabeled_ratio: float = 1.0,
        include_labeled_in_unlabeled: bool = False,
        epoch_by: EpochBy = "unlabeled",
        stage: Literal["train", "pretrain"] = "train",
    ) -> None:
        if not views:
            raise InputError("semi.views is empty; unlabelled videos need at least one view.")
        for name, view in views.items():
            if view.sampler.end_policy == "error":
                raise InputError(
                    f"semi.views.{name}.sampler.end_policy=error would end the run at the first short video; use "
                    "repeat_last."
                )
        if isinstance(epoch_by, int) and epoch_by < 1:
            raise InputError(f"semi.epoch_by={epoch_by} must be 1 or more; as a number it counts batches.")
        self.views = dict(views)
        self.label_fraction = label_fraction
        self.label_seed = label_seed
        self.label_split_file = None if label_split_file is None else Path(label_split_file)
        self.allow_missing_classes = allow_missing_classes
        self.unlabeled_ratio = unlabeled_ratio
        self.include_labeled_in_unlabeled = include_labeled_in_unlabeled
        self.epoch_by: EpochBy = epoch_by
        self.stage = stage

    def split(self, manifest: Manifest, *, name: str, rows: Rows, labels: Rows, class_names: list[str]) -> LabelSplit:
        """Divides the training part ``rows`` of the data set ``name``.

        Raises:
            InputError: there are no labels but they are needed, or the split doesn't fit the data.
        """
        if self.stage == "pretrain":
            return LabelSplit(labeled=np.empty(0, dtype=np.int64), unlabeled=rows, family="none")
        if not class_names:
            raise InputError(
                f"{name} has no labels, and semi-supervised learning needs a few: give dataset.labels=FILE.csv with "
                "the columns path and label, or put the videos into one sub-folder per class. A first stage without "
                "labels is method.stage=pretrain, where the method has one."
            )
        return split_labels(
            manifest,
            rows=rows,
            labels=labels,
            class_names=class_names,
            label_fraction=self.label_fraction,
            label_seed=self.label_seed,
            label_split_file=self.label_split_file,
            allow_missing_classes=self.allow_missing_classes,
        )

    def pools(self, split: LabelSplit, usable: Rows) -> tuple[Rows, Rows]:
        """Labelled and unlabelled rows of a run that can use the rows ``usable``."""
        labeled = np.intersect1d(split.labeled, usable)
        unlabeled = np.intersect1d(split.unlabeled, usable)
        return labeled, np.union1d(unlabeled, labeled) if self.include_labeled_in_unlabeled else unlabeled

    def batch_sizes(self, batch_size: int) -> tuple[int, int]:
        """Labelled and unlabelled videos of a batch per device.

        Raises:
            InputError: a ratio that leaves no unlabelled video.
        """
        unlabeled = round(self.unlabeled_ratio * batch_size)
        if unlabeled < 1:
            raise InputError(
                f"semi.unlabeled_ratio={self.unlabeled_ratio} with batch_size={batch_size} leaves no unlabelled video "
                "in a batch; raise it."
            )
        return (0 if self.stage == "pretrain" else batch_size), unlabeled

    def refuse_too_few(
        self, pools: tuple[Rows, Rows], *, batch_size: int, num_processes: int, name: str, family: str
    ) -> None:
        """Refuses a global batch that is larger than its pool.

        Raises:
            InputError: names both and the way out.
        """
        sizes = self.batch_sizes(batch_size)
        for kind, pool, size in zip(("labelled", "unlabelled"), pools, sizes, strict=True):
            if len(pool) >= size * num_processes:
                continue
            fitting = int(len(pool) / num_processes / (self.unlabeled_ratio if kind == "unlabelled" else 1.0))
            other = "Raise label_fraction." if kind == "labelled" else "Lower label_fraction or semi.unlabeled_ratio."
            raise InputError(
                f"batch_size={batch_size} on {num_processes} device(s) takes {size * num_processes} {kind} videos, but "
                f"{name} has {len(pool)} for training (label split: {family}). "
                + (f"Use batch_size={fitting} or less." if fitting else other)
            )
