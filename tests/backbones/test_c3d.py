"""VCOP's C3D with batch norm: its sizes and its layers."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_video.backbones.c3d import C3D
from ssl_video.utils.errors import InputError


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        network = C3D()
    channels = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    pairs = itertools.pairwise(channels)
    expected = sum(27 * before * after + after + 2 * after for before, after in pairs)  # with bias, and the norm's two
    assert expected == 27_661_440  # the published count, by the formula
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_feature_map_and_features_of_a_paper_clip() -> None:
    with torch.device("meta"):
        network, clips = C3D(), torch.empty(2, 3, 16, 112, 112)
        features = network.feature_map(clips)
        assert features.shape == (2, 512, 2, 7, 7)
        assert functional.max_pool3d(features, (1, 2, 2)).flatten(1).shape == (2, 9216)
        assert network(clips).shape == (2, 512)
    assert network.feature_dim == 512


def small() -> C3D:
    torch.manual_seed(0)
    return C3D(widths=(4, 4, 8, 8, 16))


def test_values_are_those_of_the_network_written_out() -> None:
    network = small().double().eval()
    convolutions = iter([module for module in network.modules() if isinstance(module, nn.Conv3d)])
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    for norm in norms:
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
    means = iter([norm.running_mean.view(-1, 1, 1, 1) for norm in norms])
    clips = torch.rand(2, 3, 9, 33, 40, dtype=torch.float64)
    x = clips
    for step in ["conv", (1, 2, 2), "conv", 2, "conv", "conv", 2, "conv", "conv", 2, "conv", "conv"]:
        if step == "conv":
            convolution = next(convolutions)
            x = functional.conv3d(x, convolution.weight, convolution.bias, padding=1) - next(means)
            x = (x / (1 + 1e-5) ** 0.5).clamp(min=0)
        else:
            x = functional.max_pool3d(x, step)
    assert x.shape == (2, 16, 1, 2, 2)
    torch.testing.assert_close(network.feature_map(clips), x)
    torch.testing.assert_close(network(clips), x.mean(dim=(2, 3, 4)))


def test_gradient_reaches_every_parameter_but_the_biases_that_a_norm_cancels() -> None:
    network = small()
    network(torch.rand(2, 3, 8, 48, 48)).square().sum().backward()
    cancelled = {f"{name}.bias" for name, module in network.named_modules() if isinstance(module, nn.Conv3d)}
    weights = {name: weight for name, weight in network.named_parameters() if name not in cancelled}
    assert len(weights) == 8 * 3
    assert [name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()] == []


def test_train_and_eval() -> None:
    network, clips = small(), torch.rand(2, 3, 8, 32, 32)
    assert not torch.allclose(network(clips[:1]), network(clips)[:1], atol=1e-3)
    network.eval()
    torch.testing.assert_close(network(clips[:1]), network(clips)[:1])


def test_the_smallest_clip() -> None:
    network = small().eval()
    assert network.feature_map(torch.rand(1, 3, 8, 16, 16)).shape == (1, 16, 1, 1, 1)
    with pytest.raises(InputError, match="num_frames=7 must be at least 8 for C3D"):
        network(torch.rand(1, 3, 7, 16, 16))
    with pytest.raises(InputError, match="16x15 pixels must be at least 16x16 for C3D"):
        network(torch.rand(1, 3, 8, 16, 15))


def test_the_smallest_clip_follows_the_number_of_stages() -> None:
    network = C3D(convolutions_per_stage=(1, 1), widths=(4, 6))
    assert network.eval().feature_map(torch.rand(1, 3, 1, 2, 2)).shape == (1, 6, 1, 1, 1)
    assert (network.min_frames, network.min_size, network.feature_dim) == (1, 2, 6)


@pytest.mark.parametrize(("convolutions", "widths"), [((1, 1), (4,)), ((), ()), ((1, 0), (4, 4)), ((1, 1), (4, -1))])
def test_sizes_that_are_no_network(convolutions: tuple[int, ...], widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="equally many entries"):
        C3D(convolutions_per_stage=convolutions, widths=widths)
