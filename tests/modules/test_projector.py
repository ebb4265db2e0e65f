import pytest
import torch
from torch import nn

from ssl_video.modules.projector import Projector


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def kinds(projector: Projector) -> list[str]:
    return [type(layer).__name__ for layer in projector.layers]


@pytest.mark.parametrize(
    ("sizes", "num_layers", "batch_norm", "parameters"),
    [
        ((2048, 2048, 128), 3, "none", 8_654_976),  # MoCo over video
        ((2048, 4096, 256), 2, "hidden", 9_445_632),  # BYOL's projector
        ((256, 4096, 256), 2, "hidden", 2_105_600),  # BYOL's predictor
    ],
)
def test_parameter_counts_of_the_papers(sizes, num_layers, batch_norm, parameters):
    with torch.device("meta"):
        projector = Projector(
            sizes[0], hidden_features=sizes[1], out_features=sizes[2], num_layers=num_layers, batch_norm=batch_norm
        )
    assert count(projector) == parameters


def test_layers_and_biases():
    plain = Projector(6, hidden_features=5, out_features=4, num_layers=3)
    normed = Projector(6, hidden_features=5, out_features=4, num_layers=3, batch_norm="hidden")
    assert kinds(plain) == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert kinds(normed) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    closed = Projector(6, hidden_features=5, out_features=4, num_layers=2, batch_norm="all")
    assert kinds(closed) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert [name for name, _ in closed.named_parameters()] == [
        "layers.0.weight",
        "layers.1.weight",
        "layers.1.bias",
        "layers.3.weight",
    ]
    assert [layer.bias is not None for layer in plain.layers if isinstance(layer, nn.Linear)] == [True, True, True]
    assert [layer.bias is not None for layer in normed.layers if isinstance(layer, nn.Linear)] == [False, False, True]


@pytest.mark.parametrize(("batch_norm", "bias"), [("hidden", "all"), ("all", "none"), ("hidden", "none")])
def test_biases_can_be_asked_for_or_left_out(batch_norm, bias):
    """CVRL has them before batch norm too, MoCo v3 nowhere."""
    projector = Projector(6, hidden_features=5, out_features=4, num_layers=3, batch_norm=batch_norm, bias=bias)
    linear = [layer for layer in projector.layers if isinstance(layer, nn.Linear)]
    assert [layer.bias is not None for layer in linear] == [bias == "all"] * 3
    with pytest.raises(ValueError, match="bias='some'"):
        Projector(6, hidden_features=5, out_features=4, num_layers=3, bias="some")


def test_momentum_of_the_running_statistics():
    slow = Projector(3, hidden_features=5, out_features=2, num_layers=2, batch_norm="all", batch_norm_momentum=0.003)
    assert [layer.momentum for layer in slow.layers if isinstance(layer, nn.BatchNorm1d)] == [0.003, 0.003]
    assert Projector(3, hidden_features=5, out_features=2, num_layers=2, batch_norm="hidden").layers[1].momentum == 0.1


def test_initialisation_is_xavier_with_zero_biases():
    projector = Projector(300, hidden_features=500, out_features=100, num_layers=2)
    for layer in (projector.layers[0], projector.layers[2]):
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert layer.bias.abs().max() == 0
        assert 0.99 * bound < layer.weight.abs().max() <= bound


def test_one_layer_is_linear_and_the_output_can_be_negative():
    projector = Projector(3, hidden_features=0, out_features=2, num_layers=1)
    features = torch.randn(8, 3)
    torch.testing.assert_close(projector(features), -projector(-features))
    assert Projector(3, hidden_features=9, out_features=2, num_layers=3)(features).min() < 0


def test_no_layer_is_refused():
    with pytest.raises(ValueError, match="num_layers=0"):
        Projector(3, hidden_features=3, out_features=3, num_layers=0)
    with pytest.raises(ValueError, match="batch_norm='some'"):
        Projector(3, hidden_features=3, out_features=3, num_layers=2, batch_norm="some")
