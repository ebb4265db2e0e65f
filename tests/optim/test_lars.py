import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_video.optim.lars import LARS
from ssl_video.optim.parameter_groups import decay_groups
from ssl_video.optim.schedules import WarmupCosine


def lars_oracle(
    weight: np.ndarray,
    gradients: list[np.ndarray],
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    trust_coefficient: float,
) -> np.ndarray:
    """The update rule in float64, written from the papers."""
    velocity = np.zeros_like(weight)
    for gradient in gradients:
        direction = gradient
        if weight.ndim > 1:
            weight_norm, gradient_norm = np.sqrt((weight**2).sum()), np.sqrt((gradient**2).sum())
            local = trust_coefficient * weight_norm / (gradient_norm + weight_decay * weight_norm)
            direction = local * (gradient + weight_decay * weight)
        velocity = momentum * velocity + direction
        weight = weight - lr * (direction + momentum * velocity if nesterov else velocity)
    return weight


def run(parameter: nn.Parameter, gradients: list[Tensor], **settings: Any) -> LARS:
    optimizer = LARS([parameter], **settings)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 1, 3, 3)])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-6, 0.1])
def test_equals_the_oracle(shape: tuple[int, ...], nesterov: bool, weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, *gradients = torch.randn(6, *shape, generator=generator, dtype=torch.float64)
    settings: dict[str, Any] = {
        "lr": 4.8,
        "momentum": 0.9,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
        "trust_coefficient": 0.001,
    }
    parameter = nn.Parameter(weight.clone())
    run(parameter, gradients, **settings)
    expected = lars_oracle(weight.numpy(), [gradient.numpy() for gradient in gradients], **settings)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)


def test_one_dimensional_parameters_move_as_by_sgd_without_decay() -> None:
    gradients = list(torch.randn(4, 7))
    ours, theirs = (nn.Parameter(torch.ones(7)) for _ in range(2))
    run(ours, gradients, lr=0.1, nesterov=True, weight_decay=0.5)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, nesterov=True)
    for gradient in gradients:
        theirs.grad = gradient.clone()
        sgd.step()
    torch.testing.assert_close(ours, theirs)


def test_length_of_a_step_does_not_depend_on_the_gradients() -> None:
    for scale in (1e-6, 1.0, 1e6):
        parameter = nn.Parameter(torch.full((3, 4), 2.0))
        run(parameter, [scale * torch.randn(3, 4)], lr=0.5, momentum=0.0, trust_coefficient=0.01)
        moved = torch.linalg.vector_norm(parameter.detach() - 2.0) / torch.linalg.vector_norm(torch.full((3, 4), 2.0))
        assert float(moved) == pytest.approx(0.5 * 0.01, rel=1e-4)


def test_zero_weights_and_zero_gradients_are_not_scaled() -> None:
    zeros = nn.Parameter(torch.zeros(2, 2))
    run(zeros, [torch.ones(2, 2)], lr=0.5, momentum=0.0)
    assert torch.equal(zeros.detach(), torch.full((2, 2), -0.5))
    still = nn.Parameter(torch.ones(2, 2))
    run(still, [torch.zeros(2, 2)], lr=0.5, momentum=0.0)
    assert torch.equal(still.detach(), torch.ones(2, 2))


def test_gradients_are_left_as_they_are_and_parameters_without_one_stay() -> None:
    seen, unseen = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    seen.grad = torch.full((2, 2), 3.0)
    LARS([seen, unseen], lr=1.0, weight_decay=0.1).step()
    assert torch.equal(seen.grad, torch.full((2, 2), 3.0))
    assert torch.equal(unseen.detach(), torch.ones(2, 2))


def test_state_round_trips() -> None:
    gradients = list(torch.randn(3, 4, 3))
    parameter = nn.Parameter(torch.randn(4, 3))
    optimizer = run(parameter, gradients, lr=0.5, nesterov=True)
    other = nn.Parameter(parameter.detach().clone())
    resumed = LARS([other], lr=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, its_optimizer in ((parameter, optimizer), (other, resumed)):
        one.grad = torch.ones(4, 3)
        its_optimizer.step()
    assert torch.equal(parameter, other)


def test_closure_is_called_with_gradients_on() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([parameter], lr=1.0)

    def closure() -> float:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert parameter.max() < 1


def test_goes_with_our_groups_and_schedules() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = LARS(decay_groups(network), lr=0.05, weight_decay=1e-6, trust_coefficient=0.2)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-6, 0.0]
    schedule = WarmupCosine(optimizer, total_steps=300, steps_per_epoch=10, warmup_epochs=1.0)
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    targets = inputs.sum(dim=1, keepdim=True).sign()
    values = []
    for _ in range(300):
        loss = nn.functional.mse_loss(network(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        values.append(loss.item())
    assert values[-1] < 0.3 * values[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0"),
        ({"momentum": -0.1}, "momentum=-0.1"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
        ({"trust_coefficient": -1.0}, "trust_coefficient=-1.0"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov=True"),
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LARS([nn.Parameter(torch.ones(1))], **({"lr": 0.1} | settings))
