from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from ssl_video.cli.parts import build_backbone
from ssl_video.optim.layer_groups import layer_groups, layers_of
from ssl_video.optim.parameter_groups import apply_lr_factors
from support.methods import compose_train


def built(name: str) -> nn.Module:
    return build_backbone(compose_train(f"backbone={name}"))


def learning_rates(backbone: nn.Module, classifier: nn.Module, **factors: Any) -> dict[str, float]:
    """Learning rate by the parameter's name, with an optimizer's rate of 1."""
    optimizer = apply_lr_factors(SGD(layer_groups(backbone, classifier, **factors), lr=1.0))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = {**dict(backbone.named_parameters()), **{f"classifier.{n}": p for n, p in classifier.named_parameters()}}
    return {name: rates[id(parameter)] for name, parameter in named.items() if id(parameter) in rates}


# The last layer at half the classifier's rate, each one below at half of the one above it.
R3D_HALVED = {
    "classifier.weight": 1.0,
    "classifier.bias": 1.0,
    "stages.3.0.residual.0.weight": 1 / 2,
    "stages.2.0.residual.0.weight": 1 / 4,
    "stages.1.0.residual.0.weight": 1 / 8,
    "stages.0.0.residual.0.weight": 1 / 16,
    "stem.1.weight": 1 / 32,  # the stem's norm goes with the stem
    "stem.0.weight": 1 / 32,
}


def test_layers_of_a_residual_network_fall_by_the_table() -> None:
    rates = learning_rates(built("r3d_tiny"), nn.Linear(96, 4), layer_decay=0.5)
    assert {name: rates[name] for name in R3D_HALVED} == R3D_HALVED


def test_layers_of_a_transformer_fall_by_the_table() -> None:
    backbone = built("vit_tiny")
    rates = learning_rates(backbone, nn.Linear(192, 4), layer_decay=0.5)
    assert rates["norm.weight"] == rates["norm.bias"] == 1 / 2
    assert rates["patch_embed.proj.weight"] == 1 / 32
    for block in range(4):
        own = {rate for name, rate in rates.items() if name.startswith(f"blocks.{block}.")}
        assert own == {2.0 ** -(4 - block)}


LAYERS = {
    "r3d_tiny": 5,
    "c3d_small": 4,
    "caffenet_small": 7,
    "mc3_18": 9,
    "mvit_small": 4,
    "r2plus1d_small": 5,
    "slow_r50_small": 5,
    "swin3d_small": 6,
    "tsm_resnet_small": 5,
    "vit_tiny": 5,
}


@pytest.mark.parametrize(("name", "number"), LAYERS.items())
def test_every_backbone_has_layers_that_hold_each_parameter_once(name: str, number: int) -> None:
    backbone = built(name)
    layers = layers_of(backbone)
    assert len(layers) == number
    held = [(own, parameter) for layer in layers for own, parameter in layer]
    assert dict(held).keys() == dict(backbone.named_parameters()).keys()
    assert len(held) == len(dict(held))
    assert all(dict(backbone.named_parameters())[own] is parameter for own, parameter in held)


def test_parameters_of_the_network_itself_learn_as_its_first_layer() -> None:
    class WithToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 2))
            self.embed = nn.Linear(2, 2)
            self.block = nn.Linear(2, 2)

    names = [[name for name, _ in layer] for layer in layers_of(WithToken())]
    assert names == [["token", "embed.weight", "embed.bias"], ["block.weight", "block.bias"]]


def small() -> tuple[nn.Module, nn.Module]:
    backbone = nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2), nn.Conv1d(2, 2, 1))
    return backbone, nn.Linear(2, 3)


def test_biases_and_classifier_have_rates_of_their_own() -> None:
    rates = learning_rates(
        *small(), backbone_lr_factor=0.1, bias_lr_factor=2.0, classifier_lr_factor=5.0, classifier_bias_lr_factor=10.0
    )
    assert rates == pytest.approx(
        {
            "0.weight": 0.1,
            "0.bias": 0.2,
            "1.weight": 0.1,
            "1.bias": 0.1,  # a norm's
            "2.weight": 0.1,
            "2.bias": 0.2,
            "classifier.weight": 5.0,
            "classifier.bias": 10.0,
        }
    )


@pytest.mark.parametrize("decay_all", [False, True])
def test_weight_decay_spares_biases_and_norms_unless_asked(decay_all: bool) -> None:
    backbone, classifier = small()
    optimizer = SGD(layer_groups(backbone, classifier, decay_all=decay_all), lr=1.0, weight_decay=0.5)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.5 if decay_all or parameter.ndim > 1 else 0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 8
    assert len(optimizer.param_groups) == (1 if decay_all else 2)


def test_frozen_parameters_are_left_out() -> None:
    backbone, classifier = small()
    backbone.requires_grad_(False)
    assert set(learning_rates(backbone, classifier)) == {"classifier.weight", "classifier.bias"}
