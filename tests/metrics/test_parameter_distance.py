"""Distance of a copy's parameters, against NumPy."""

import numpy as np
import pytest
import torch

from ssl_video.metrics.parameter_distance import relative_distance


def test_distance_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    copies, online = ([rng.standard_normal(shape) for shape in ((3, 4), (5,))] for _ in range(2))
    flat = [np.concatenate([one.ravel() for one in own]) for own in (copies, online)]
    expected = np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])
    found = relative_distance(*[[torch.from_numpy(one) for one in own] for own in (copies, online)])
    assert float(found) == pytest.approx(expected)


def test_closed_forms() -> None:
    one = [torch.full((2, 2), 3.0), torch.tensor([4.0])]
    assert float(relative_distance(one, one)) == 0
    assert float(relative_distance([2 * each for each in one], one)) == pytest.approx(1)
