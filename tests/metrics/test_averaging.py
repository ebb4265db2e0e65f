"""Averaging of views against NumPy, and where the three ways agree and differ."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssl_video.metrics.averaging import average_views, classify_views


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("views", [1, 3, 30, 250])
def test_both_ways_against_numpy(views: int) -> None:
    scores = torch.randn(4, views, 5, dtype=torch.float64)
    given = scores.numpy()
    probabilities, logits = (average_views(scores, how) for how in ("probabilities", "logits"))
    np.testing.assert_allclose(probabilities.numpy(), softmax(given).mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(logits.numpy(), softmax(given.mean(axis=1)), atol=1e-12)
    np.testing.assert_allclose(probabilities.sum(dim=1).numpy(), 1)
    assert torch.allclose(probabilities, logits) == (views == 1)


def test_a_sure_view_outvotes_the_others_by_logits_only() -> None:
    """Two views lean to class 0, one is sure of class 1: hand-made numbers."""
    scores = torch.tensor([[[2.0, 0.0], [2.0, 0.0], [0.0, 9.0]]])
    by_probabilities, by_logits = (average_views(scores, how) for how in ("probabilities", "logits"))
    assert (by_probabilities.argmax().item(), by_logits.argmax().item()) == (0, 1)
    one, nine = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(9))
    assert by_probabilities[0, 0].item() == pytest.approx((2 * one + nine) / 3)
    assert by_logits[0, 0].item() == pytest.approx(1 / (1 + np.exp(5 / 3)))


def test_order_of_the_views_is_nothing() -> None:
    scores = torch.randn(3, 10, 4, dtype=torch.float64)
    for how in ("probabilities", "logits"):
        torch.testing.assert_close(average_views(scores[:, torch.randperm(10)], how), average_views(scores, how))


def test_features_are_averaged_before_the_classifier() -> None:
    features = torch.randn(6, 4, 8, dtype=torch.float64)
    classify = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    ways = {how: classify_views(features, classify, how) for how in ("features", "logits", "probabilities")}
    torch.testing.assert_close(ways["features"], classify(features.mean(dim=1)).softmax(dim=1))
    per_view = torch.stack([classify(features[:, view]) for view in range(4)], dim=1)
    torch.testing.assert_close(ways["logits"], average_views(per_view, "logits"))
    torch.testing.assert_close(ways["probabilities"], average_views(per_view, "probabilities"))
    assert not torch.allclose(ways["features"], ways["logits"])
    assert not torch.allclose(ways["features"], ways["probabilities"])


def test_where_the_ways_agree() -> None:
    """All for one view; features and logits for a linear classifier."""
    features = torch.randn(6, 4, 8, dtype=torch.float64)
    linear = nn.Linear(8, 3).double()
    torch.testing.assert_close(classify_views(features, linear, "features"), classify_views(features, linear, "logits"))
    assert not torch.allclose(
        classify_views(features, linear, "features"), classify_views(features, linear, "probabilities")
    )
    deep = nn.Sequential(linear, nn.ReLU())
    one, *others = (classify_views(features[:, :1], deep, how) for how in ("features", "logits", "probabilities"))
    for other in others:
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize(
    ("scores", "how", "message"),
    [
        (torch.zeros(2, 3), "logits", "must be floating point"),
        (torch.zeros(2, 0, 3), "logits", "V >= 1"),
        (torch.zeros(2, 1, 3, dtype=torch.int64), "logits", "int64"),
        (torch.zeros(2, 1, 3), "features", "classify_views"),
        (torch.zeros(2, 1, 3), "votes", "how='votes'"),
    ],
)
def test_wrong_scores_are_refused(scores: torch.Tensor, how: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        average_views(scores, how)


def test_wrong_features_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features of shape \(2, 3\)"):
        classify_views(torch.zeros(2, 3), nn.Identity(), "features")
