"""Accuracy of class scores."""

import torch
from sklearn.metrics import recall_score
from torch import Tensor


def topk_hits(scores: Tensor, labels: Tensor, *, k: int) -> Tensor:
    """Return `[N]` bool: is the label among the k highest scores (their mean is the top-k accuracy).

    Of equal scores the lower class comes first. A score of minus infinity means "not predicted" and is never a hit.

    Args:
        scores: `[N, num_classes]`, any monotone score.
        labels: `[N]` int64 in 0 .. num_classes - 1.
        k: classes that may be named, at least 1.

    Raises:
        ValueError: shapes that do not fit, labels outside the classes, NaN scores, or k below 1.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} must be [N, classes] and [N].")
    if k < 1:
        raise ValueError(f"k={k} must be at least 1.")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]:
        raise ValueError(
            f"labels {int(labels.min())} .. {int(labels.max())} must lie in 0 .. {scores.shape[1] - 1}, the classes."
        )
    if bool(torch.isnan(scores).any()):
        raise ValueError("scores hold NaN; they have no order.")
    own = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    ahead = (scores > own) | ((scores == own) & (classes < labels[:, None]))
    return (ahead.sum(dim=1) < k) & (own[:, 0] > -torch.inf)


def balanced_accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the mean over the classes that occur in `labels` `[N]` of the share of each that is predicted right."""
    present = torch.unique(labels).tolist()
    return float(recall_score(labels.cpu().numpy(), predictions.cpu().numpy(), labels=present, average="macro"))
