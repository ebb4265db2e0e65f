"""What is said of features: against NumPy, on features of known shape, and on those of a collapsed network."""

import math

import numpy as np
import pytest
import torch

from ssl_video.metrics.feature_health import feature_health
from ssl_video.metrics.rank import rankme

RNG = np.random.default_rng(0)


def test_std_and_dead_share_are_those_of_numpy() -> None:
    batches = [RNG.standard_normal((12, 5)), RNG.standard_normal((7, 5)) + 3]
    for batch in batches:
        batch[:, 2] = 0.0
    stds = []
    for batch in batches:
        unit = batch / np.linalg.norm(batch, axis=1, keepdims=True)
        stds.append(unit.std(axis=0) * math.sqrt(5))
    found = feature_health([torch.from_numpy(batch) for batch in batches])
    assert found["std"] == pytest.approx(np.mean(stds), abs=1e-12)
    assert found["dead_share"] == pytest.approx(1 / 5)
    assert found["rankme"] == pytest.approx(rankme(torch.from_numpy(np.concatenate(batches))))


def test_directions_that_fill_the_sphere() -> None:
    found = feature_health([torch.from_numpy(RNG.standard_normal((200, 16))) for _ in range(2)])
    assert found["std"] == pytest.approx(1, abs=0.05)
    assert found["dead_share"] == 0
    assert found["rankme"] > 15
    assert found["uniformity"] < -3


def test_a_collapsed_network_that_moves_is_seen_to_be_collapsed() -> None:
    """One feature for all clips, another one in each batch: taken together these would have a spread."""
    moving = [torch.from_numpy(RNG.standard_normal((1, 16))).expand(20, 16) for _ in range(4)]
    found = feature_health(moving)
    assert found["std"] == pytest.approx(0, abs=1e-6)
    assert found["dead_share"] == 1
    assert found["uniformity"] == pytest.approx(0, abs=1e-9)
    assert feature_health([torch.cat(moving)])["std"] > 0.5


def test_features_that_are_all_zero_or_not_finite() -> None:
    dead = feature_health([torch.zeros(4, 3)])
    assert (dead["std"], dead["dead_share"], dead["rankme"], dead["uniformity"]) == (0, 1, 0, 0)
    broken = torch.ones(4, 3)
    broken[1, 1] = float("inf")
    assert all(math.isnan(value) for value in feature_health([broken]).values())


def test_no_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one is needed"):
        feature_health([])
