"""What a protocol is given, frozen features with labels, and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from ssl_video.evaluation.clips import NUM_CROPS, ClipSpec, Part
from ssl_video.utils.errors import InputError


@dataclass
class FeatureSet:
    """Frozen features of N videos, V clips each.

    Attributes:
        features: `[N, V, D]` floating point.
        labels: `[N]` int64, -1 where a video has none.
        video_ids: N names, for messages.
        groups: N group names (videos of one group share scene or actor), None where a video has none.
        altered: by the names that the protocol gave them, `[N, V', D']` of the other clips it asked for.
        paths: N paths relative to the data set's root, by which published lists name videos; empty if unknown.
        too_short: by the same names as `altered`, and `NORMAL` for its own clips, `[N]` bool: is the video shorter than
            one of these clips, so that frames repeat in it; a name that is missing has no such videos.
    """

    features: Tensor
    labels: Tensor
    video_ids: list[str]
    groups: list[str | None]
    altered: Mapping[str, Tensor] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    too_short: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every part speaks of the same N videos."""
        sizes = {len(self.features), len(self.labels), len(self.video_ids), len(self.groups)}
        if self.features.ndim != 3 or self.labels.ndim != 1 or len(sizes) != 1:
            raise ValueError(
                f"features {tuple(self.features.shape)}, labels {tuple(self.labels.shape)}, {len(self.video_ids)} "
                f"video_ids and {len(self.groups)} groups must be [N, V, D], [N], N and N."
            )

    def __len__(self) -> int:
        """Return the number of videos, N."""
        return len(self.labels)

    @property
    def num_clips(self) -> int:
        """Clips per video, V."""
        return self.features.shape[1]

    def select(self, rows: Tensor) -> "FeatureSet":
        """Return some of the videos, named by numbers or by a mask `[N]`."""
        places = torch.arange(len(self))[rows].tolist()
        return FeatureSet(
            features=self.features[rows],
            labels=self.labels[rows],
            video_ids=[self.video_ids[place] for place in places],
            groups=[self.groups[place] for place in places],
            altered={name: features[rows] for name, features in self.altered.items()},
            paths=[self.paths[place] for place in places] if self.paths else [],
            too_short={name: short[rows] for name, short in self.too_short.items()},
        )

    def video_features(self) -> Tensor:
        """Return the mean over the clips of each video, `[N, D]` float64, not normalised."""
        # Some videos at a time: all clips as float64 would take twice what they take as they are.
        return torch.cat([block.double().mean(dim=1) for block in self.features.split(4096)])


@dataclass
class ProtocolResult:
    """What a protocol measured.

    Attributes:
        metrics: name to value; shares are fractions in [0, 1].
        per_video: name to `[N]`, the values of the test videos whose mean is the metric of that name; a metric that is
            not such a mean is absent.
        settings: everything that was set or chosen, in plain values.
        predictions: `[N]` int64 class named for each test video, if the protocol names one.
        neighbours: `[N, k]` int64 places in the train part of the nearest videos, nearest first, if it looks for them.
        details: tables behind the metrics (per draw, per corruption …), in plain lists, mappings and numbers.
    """

    metrics: dict[str, float]
    per_video: dict[str, np.ndarray] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    predictions: np.ndarray | None = None
    neighbours: np.ndarray | None = None
    details: dict[str, Any] = field(default_factory=dict)


class EvaluationProtocol(Protocol):
    """Measures frozen features: fits on `train`, asks on `test`.

    Attributes:
        name: as on the command line.
        version: of what is computed and how the result is shaped.
        needs_labels: whether it can do nothing without them.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    needs_labels: ClassVar[bool]

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return the clips it wants of a part, its own under `NORMAL`; no others than these reach it."""
        ...

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Return the metrics of `test`."""
        ...


def check_features(train: FeatureSet, test: FeatureSet) -> None:
    """Raise InputError unless both parts have videos, and all their features are finite."""
    for part, videos in (("train", train), ("test", test)):
        if len(videos) == 0:
            raise InputError(
                f"the {part} part has no videos, at least one is needed; give a split column, "
                "dataset.test_fraction=0.3 or dataset.test_groups=[...]."
            )
        for features in (videos.features, *videos.altered.values()):
            broken = ~torch.isfinite(features).all(dim=2).all(dim=1)
            if bool(broken.any()):
                first = videos.video_ids[int(broken.nonzero()[0, 0])]
                raise InputError(
                    f"{int(broken.sum())} videos of the {part} part have features that are not finite (first: "
                    f"{first}); the checkpoint has diverged, or its input transform does not fit."
                )


def check_labelled(train: FeatureSet, test: FeatureSet, *, num_classes: int) -> None:
    """Raise InputError unless both parts have videos, finite features, and each video a label below `num_classes`."""
    check_features(train, test)
    for part, videos in (("train", train), ("test", test)):
        missing = [name for name, label in zip(videos.video_ids, videos.labels.tolist(), strict=True) if label < 0]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(videos)} videos of the {part} part have no label (first: {missing[0]}), this "
                "protocol needs one for each; give dataset.labels=FILE.csv, choose a column by dataset.label=NAME, "
                "or leave those videos out."
            )
        if int(videos.labels.max()) >= num_classes:
            raise ValueError(f"label {int(videos.labels.max())} must be below num_classes={num_classes}.")


def check_classes(train: FeatureSet) -> None:
    """Raise InputError where all train videos have one class."""
    if len(train.labels.unique()) < 2:
        raise InputError(
            f"all {len(train)} train videos have one class, at least 2 are needed; "
            "choose another label column (dataset.label=NAME) or split."
        )


def check_num_clips(num_clips: int) -> None:
    """Raise ValueError unless at least one clip per video is asked."""
    if num_clips < 1:
        raise ValueError(f"num_clips={num_clips} must be at least 1; a video is seen through its clips.")


def check_crops(crops: str) -> None:
    """Raise ValueError unless there is such a set of crops."""
    if crops not in NUM_CROPS:
        raise ValueError(f"crops={crops} must be one of {', '.join(NUM_CROPS)}.")
