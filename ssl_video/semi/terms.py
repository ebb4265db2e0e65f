"""The losses of unlabelled videos, put together from their parts.

A semi-supervised method is a dictionary of terms (whose targets, which of them count, what is trained) and a schedule
of their weights. FixMatch's one term, for instance, is
``Term(SelfModel("weak"), FixedThreshold(0.95), HardCE("strong"))``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_video.semi.consistency import ConsistencyTerm
from ssl_video.semi.selection import SelectionPolicy
from ssl_video.semi.targets import TargetSource


@dataclass(frozen=True)
class Term:
    """One loss of unlabelled videos."""

    targets: TargetSource
    selection: SelectionPolicy
    consistency: ConsistencyTerm

    @property
    def views(self) -> set[str]:
        """Names of the views that must have been encoded."""
        return {*self.targets.views, *self.consistency.views}


def active_terms(terms: Mapping[str, Term], weights: Mapping[str, float]) -> dict[str, Term]:
    """The terms whose weight is not 0; only their views need to be encoded."""
    return {name: term for name, term in terms.items() if weights.get(name, 0.0) != 0.0}


def unlabeled_losses(
    terms: Mapping[str, Term], weights: Mapping[str, float], *, logits: Mapping[str, Tensor], videos: Tensor
) -> dict[str, Tensor]:
    """Weighted losses by name.

    Args:
        terms: the terms that are on.
        weights: of each term.
        logits: ``[U, C]`` per view.
        videos: ``[U]`` numbers of the videos.
    """
    losses = {}
    for name, term in terms.items():
        targets = term.targets(logits)
        losses[name] = weights[name] * term.consistency(logits, targets, term.selection(targets), videos)
    return losses


@torch.no_grad()
def describe_selection(
    terms: Mapping[str, Term], *, logits: Mapping[str, Tensor], hidden_labels: Tensor
) -> dict[str, Tensor]:
    """What is worth watching of the last term's targets.

    Args:
        terms: the terms that are on; without any nothing is used, and nothing is known of what would be.
        logits: ``[U, C]`` per view.
        hidden_labels: ``[U]`` true labels, -1 where there is none.

    Returns:
        ``util_ratio``, the share of videos that count; ``mean_conf``, of all; ``pseudo_acc``, the share of those that
        count and have a hidden label whose most probable class is right (nan where there are none).
    """
    if not terms:
        unknown = torch.full((), torch.nan, device=hidden_labels.device)
        return {"util_ratio": torch.zeros_like(unknown), "mean_conf": unknown, "pseudo_acc": unknown}
    term = list(terms.values())[-1]
    targets = term.targets(logits)
    weights = term.selection(targets)
    known = weights * (hidden_labels >= 0)
    right = (targets.classes == hidden_labels) * known
    return {
        "util_ratio": (weights > 0).float().mean(),
        "mean_conf": targets.confidence.mean(),
        "pseudo_acc": right.sum() / known.sum(),
    }
