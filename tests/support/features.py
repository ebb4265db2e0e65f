"""Feature sets with known classes, for metrics and protocols."""

from collections.abc import Sequence

import torch

from ssl_video.evaluation.features import FeatureSet


def feature_set(
    labels: Sequence[int],
    *,
    num_clips: int = 3,
    dim: int = 8,
    noise: float = 0.1,
    groups: Sequence[str | None] | None = None,
    prefix: str = "video",
) -> FeatureSet:
    """Return one cluster per class, around the unit vector of its number, each clip off by its own noise.

    The videos are named by the prefix and their number; sets of one prefix share their first videos.
    """
    classes = torch.tensor(list(labels), dtype=torch.int64)
    centres = torch.eye(dim)[classes.clamp(min=0)]
    features = centres[:, None] + noise * torch.randn(len(classes), num_clips, dim)
    return FeatureSet(
        features=features,
        labels=classes,
        video_ids=[f"{prefix}_{row}" for row in range(len(classes))],
        groups=list(groups) if groups is not None else [None] * len(classes),
    )
