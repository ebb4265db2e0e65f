"""What a protocol is given, frozen features with labels, and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from ssl_video.evaluation.clips import ClipSpec, Part
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
    """

    features: Tensor
    labels: Tensor
    video_ids: list[str]
    groups: list[str | None]
    altered: Mapping[str, Tensor] = field(default_factory=dict)

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

    def video_features(self) -> Tensor:
        """Return the mean over the clips of each video, `[N, D]` float64, not normalised."""
        return self.features.double().mean(dim=1)


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


def check_labelled(train: FeatureSet, test: FeatureSet, *, num_classes: int) -> None:
    """Raise InputError unless both parts have videos, finite features, and each video a label below `num_classes`."""
    for part, videos in (("train", train), ("test", test)):
        if len(videos) == 0:
            raise InputError(
                f"the {part} part has no videos, at least one is needed; give a split column, "
                "dataset.test_fraction=0.3 or dataset.test_groups=[...]."
            )
        missing = [name for name, label in zip(videos.video_ids, videos.labels.tolist(), strict=True) if label < 0]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(videos)} videos of the {part} part have no label (first: {missing[0]}), this "
                "protocol needs one for each; give dataset.labels=FILE.csv, choose a column by dataset.label=NAME, "
                "or leave those videos out."
            )
        if int(videos.labels.max()) >= num_classes:
            raise ValueError(f"label {int(videos.labels.max())} must be below num_classes={num_classes}.")
        broken = ~torch.isfinite(videos.features).all(dim=2).all(dim=1)
        if bool(broken.any()):
            first = videos.video_ids[int(broken.nonzero()[0, 0])]
            raise InputError(
                f"{int(broken.sum())} videos of the {part} part have features that are not finite (first: {first}); "
                "the checkpoint has diverged, or its input transform does not fit."
            )


def check_num_clips(num_clips: int) -> None:
    """Raise ValueError unless at least one clip per video is asked."""
    if num_clips < 1:
        raise ValueError(f"num_clips={num_clips} must be at least 1; a video is seen through its clips.")
