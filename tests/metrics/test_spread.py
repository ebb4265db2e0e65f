"""Spread over the mean, against NumPy."""

import math

import numpy as np
import pytest
import torch

from ssl_video.metrics.spread import relative_spread


def test_spread_is_that_of_numpy() -> None:
    values = np.random.default_rng(0).normal(-2, 0.3, 50)
    assert relative_spread(torch.from_numpy(values)) == pytest.approx(values.std() / abs(values.mean()))


def test_constants_zeros_and_what_is_no_number() -> None:
    assert relative_spread(torch.full((5,), 3.0)) == 0
    assert relative_spread(torch.tensor([-1.0, 1.0])) == math.inf
    assert math.isnan(relative_spread(torch.tensor([1.0, math.nan])))
