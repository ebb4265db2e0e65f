import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_video.losses.neg_cosine import neg_cosine


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_bounds_and_orthogonal():
    one = draw(4, 5)
    assert float(neg_cosine(one, one)) == pytest.approx(-2.0)
    assert float(neg_cosine(one, -one)) == pytest.approx(2.0)
    assert float(neg_cosine(torch.eye(3), torch.eye(3).roll(1, dims=0))) == 0.0


def test_equals_the_definition_and_the_squared_distance():
    prediction, target = draw(6, 5), draw(6, 5, seed=1)
    p, t = prediction.numpy(), target.numpy()
    cosines = [p[i] @ t[i] / np.linalg.norm(p[i]) / np.linalg.norm(t[i]) for i in range(6)]
    loss = neg_cosine(prediction, target)
    assert float(loss) == pytest.approx(-2 * np.mean(cosines), rel=1e-12)
    distances = (normalize(prediction, dim=1) - normalize(target, dim=1)).square().sum(dim=1)
    torch.testing.assert_close(loss, distances.mean() - 2)


def test_scale_does_not_matter_and_the_target_gets_no_gradient():
    prediction, target = draw(6, 5).requires_grad_(), draw(6, 5, seed=1).requires_grad_()
    loss = neg_cosine(prediction, target)
    torch.testing.assert_close(neg_cosine(3.0 * prediction, 0.2 * target), loss)
    loss.backward()
    assert target.grad is None and prediction.grad.abs().sum() > 0


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[4, 5\] and target \[5\]"):
        neg_cosine(draw(4, 5), draw(5))
