"""Whether features still tell clips apart, in a few numbers: what a collapse of the network shows in."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_video.metrics.rank import rankme
from ssl_video.metrics.uniformity import direction_std, uniformity

# Of the standard deviation that a dimension has where directions fill the sphere evenly.
DEAD_BELOW = 0.01


def feature_health(batches: Sequence[Tensor]) -> dict[str, float]:
    """Describe features of training clips, batch by batch.

    Everything but RankMe is taken within each batch and averaged: between two batches the network has moved, and a
    collapsed one that moves would look as if it told clips apart.

    Args:
        batches: each ``[n, D]`` with n of at least 2, of one state of the network.

    Returns:
        ``std``: mean over the dimensions of the standard deviation of unit-length features, times the root of D; near
        1 where directions fill the sphere, 0 where all clips have one. ``dead_share``: of dimensions, those in which it
        is below 0.01. ``rankme``: of all rows together. ``uniformity``: 0 where all clips have one direction, lower the
        more evenly they spread. All are nan where a feature is not finite.

    Raises:
        ValueError: no batch, or one of fewer than two rows.
    """
    if not batches:
        raise ValueError("there are no batches; at least one is needed.")
    rows = torch.cat(list(batches))
    names = ("std", "dead_share", "rankme", "uniformity")
    if not bool(torch.isfinite(rows).all()):
        return dict.fromkeys(names, float("nan"))
    deviations = torch.stack([direction_std(batch) for batch in batches])
    values = (
        float(deviations.mean()),
        float((deviations < DEAD_BELOW).double().mean()),
        rankme(rows) if bool(rows.any()) else 0.0,
        sum(uniformity(batch) for batch in batches) / len(batches),
    )
    return dict(zip(names, values, strict=True))
