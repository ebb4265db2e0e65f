"""Every parameter in one group, at the decay and the rate of the code of TSN."""

import torch
from torch import nn
from torch.optim import SGD

from ssl_video.optim.parameter_groups import apply_lr_factors, classifier_groups


def groups(backbone: nn.Module, classifier: nn.Module) -> dict[int, dict[str, float]]:
    """Weight decay and learning rate by parameter."""
    made = classifier_groups(
        backbone, classifier, bias_lr_factor=2.0, classifier_lr_factor=5.0, classifier_bias_lr_factor=10.0
    )
    optimizer = apply_lr_factors(SGD(made, lr=0.02, weight_decay=1e-4))
    found: dict[int, dict[str, float]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
    return found


def test_rates_and_decay() -> None:
    convolution, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    classifier = nn.Linear(4, 2)
    frozen = nn.Conv2d(4, 4, 1, bias=False).requires_grad_(False)
    found = groups(nn.Sequential(convolution, norm, frozen), nn.Sequential(nn.Dropout(0.5), classifier))
    assert found[id(convolution.weight)] == {"lr": 0.02, "weight_decay": 1e-4}
    assert found[id(convolution.bias)] == {"lr": 0.04, "weight_decay": 0.0}
    assert found[id(norm.weight)] == found[id(norm.bias)] == {"lr": 0.02, "weight_decay": 0.0}
    assert found[id(classifier.weight)] == {"lr": 0.1, "weight_decay": 1e-4}
    assert found[id(classifier.bias)] == {"lr": 0.2, "weight_decay": 0.0}
    assert len(found) == 6


def test_groups_without_a_factor_are_left_alone() -> None:
    optimizer = apply_lr_factors(SGD([nn.Parameter(torch.zeros(1))], lr=0.3))
    assert optimizer.param_groups[0]["lr"] == 0.3
