import math
from itertools import combinations

import numpy as np
import pytest
import torch

from ssl_video.metrics.uniformity import direction_std, mean_cosine, uniformity


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_and_mean_cosine_equal_a_loop_over_pairs(t: float) -> None:
    features = np.random.default_rng(0).normal(size=(13, 4)) + 0.5
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    pairs = list(combinations(unit, 2))
    expected = math.log(np.mean([np.exp(-t * ((a - b) ** 2).sum()) for a, b in pairs]))
    assert uniformity(torch.from_numpy(features), t=t) == pytest.approx(expected, abs=1e-12)
    assert mean_cosine(torch.from_numpy(features)) == pytest.approx(np.mean([a @ b for a, b in pairs]), abs=1e-12)


def test_closed_forms() -> None:
    same = torch.full((9, 3), 2.0)
    assert uniformity(same) == pytest.approx(0, abs=1e-12)
    assert mean_cosine(same) == pytest.approx(1)
    assert direction_std(same).max() < 1e-12
    opposite = torch.tensor([[1.0, 0.0], [-5.0, 0.0]])
    assert uniformity(opposite) == pytest.approx(-8)
    assert mean_cosine(opposite) == pytest.approx(-1)
    torch.testing.assert_close(direction_std(opposite), torch.tensor([math.sqrt(2), 0.0], dtype=torch.float64))
    orthogonal = torch.eye(6) * torch.arange(1.0, 7)[:, None]
    assert uniformity(orthogonal) == pytest.approx(-4)
    assert mean_cosine(orthogonal) == pytest.approx(0)


def test_directions_drawn_evenly_come_to_the_known_limits() -> None:
    features = torch.randn(2000, 256)
    # The squared distance has mean 2 and variance 4 / D, so E exp(-2 d) is about exp(-4 + 8 / D).
    assert uniformity(features) == pytest.approx(-4 + 8 / 256, abs=0.01)
    assert mean_cosine(features) == pytest.approx(0, abs=1e-3)
    assert float(direction_std(features).mean()) == pytest.approx(1, abs=0.01)


def test_squared_deviations_average_to_what_the_mean_direction_leaves() -> None:
    features = torch.randn(50, 7) + 1
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    assert float(direction_std(features).square().mean()) == pytest.approx(1 - float(unit.mean(dim=0).square().sum()))


@pytest.mark.parametrize("chunk_size", [1, 3, 16, 1000])
def test_result_does_not_depend_on_the_chunk_size(chunk_size: int) -> None:
    features = torch.randn(50, 6)
    assert uniformity(features, chunk_size=chunk_size) == pytest.approx(uniformity(features), abs=1e-12)


def test_rows_of_zeros_do_no_harm() -> None:
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert uniformity(features) == pytest.approx(-2)  # the squared distance is 1
    assert mean_cosine(features) == 0


def test_faulty_input_is_refused() -> None:
    for metric in (uniformity, mean_cosine, direction_std):
        with pytest.raises(ValueError, match="N at least 2"):
            metric(torch.ones(1, 4))
    with pytest.raises(ValueError, match="t=0"):
        uniformity(torch.eye(2), t=0)
    with pytest.raises(ValueError, match="chunk_size=0"):
        uniformity(torch.eye(2), chunk_size=0)
