"""VCOP's R(2+1)D: its channels, its sizes, and how a convolution is factorised."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_video.backbones.r2plus1d import R2Plus1D, middle_channels

# Written out from the paper's table, in the order of the layers: (in, middle, out, kernel in space, kernel in time).
LAYERS = [
    (3, 83, 64, 7, 3),
    (64, 144, 64, 3, 3),
    (64, 144, 64, 3, 3),
    (64, 230, 128, 3, 3),
    (128, 288, 128, 3, 3),
    (64, 42, 128, 1, 1),
    (128, 460, 256, 3, 3),
    (256, 576, 256, 3, 3),
    (128, 85, 256, 1, 1),
    (256, 921, 512, 3, 3),
    (512, 1152, 512, 3, 3),
    (256, 170, 512, 1, 1),
]


@pytest.mark.parametrize(("before", "middle", "after", "space", "time"), LAYERS)
def test_middle_channels(before: int, middle: int, after: int, space: int, time: int) -> None:
    assert middle_channels(before, after, kernel=(time, space, space)) == middle
    weights = space * space * before + time * after  # for each middle channel
    full = time * space * space * before * after
    assert middle * weights <= full < (middle + 1) * weights  # the most that don't exceed the full convolution


def test_middle_channels_are_never_none() -> None:
    assert middle_channels(1, 1, kernel=(1, 1, 1)) == 1


def test_convolutions_of_the_network() -> None:
    with torch.device("meta"):
        network = R2Plus1D()
    found = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    in_space, in_time = found[0::2], found[1::2]
    assert [
        (first.in_channels, first.out_channels, second.out_channels, first.kernel_size[1], second.kernel_size[0])
        for first, second in zip(in_space, in_time, strict=True)
    ] == LAYERS
    assert all(conv.kernel_size[0] == 1 and conv.stride[0] == 1 and conv.bias is None for conv in in_space)
    assert all(conv.kernel_size[1:] == (1, 1) and conv.stride[1:] == (1, 1) and conv.bias is None for conv in in_time)
    assert [conv.stride[1] for conv in in_space] == [2, 1, 1, *[2, 1, 2] * 3]
    assert [conv.stride[0] for conv in in_time] == [1, 1, 1, *[2, 1, 2] * 3]


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        network = R2Plus1D()
    expected = sum(
        space * space * before * middle + time * middle * after + 2 * middle + 2 * after
        for before, middle, after, space, time in LAYERS
    )
    assert expected == 14_365_303  # the published count, by the formula
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_feature_map_and_features_of_a_paper_clip() -> None:
    with torch.device("meta"):
        network, clips = R2Plus1D(), torch.empty(2, 3, 16, 112, 112)
        features = network.feature_map(clips)
        assert features.shape == (2, 512, 2, 7, 7)
        assert functional.max_pool3d(features, (1, 2, 2)).flatten(1).shape == (2, 9216)
        assert network(clips).shape == (2, 512)
    assert network.feature_dim == 512


def test_a_convolution_is_space_then_norm_relu_then_time() -> None:
    torch.manual_seed(0)
    convolution = R2Plus1D.convolution(2, 5, kernel=(3, 5, 5), stride=(2, 1, 2)).double().eval()
    norm = next(module for module in convolution.modules() if isinstance(module, nn.BatchNorm3d))
    nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    in_space, in_time = (module.weight for module in convolution.modules() if isinstance(module, nn.Conv3d))
    clips = torch.rand(2, 2, 7, 9, 10, dtype=torch.float64)
    frames = [functional.conv2d(frame, in_space[:, :, 0], stride=(1, 2), padding=2) for frame in clips.unbind(2)]
    centred = torch.stack(frames, 2) - norm.running_mean.view(-1, 1, 1, 1)
    middle = (centred / (1 + norm.eps) ** 0.5).clamp(min=0)
    padded = functional.pad(middle, (0, 0, 0, 0, 1, 1))
    expected = sum(
        torch.einsum("nmthw,om->nothw", padded[:, :, k : k + 7 : 2], in_time[:, :, k, 0, 0]) for k in range(3)
    )
    torch.testing.assert_close(convolution(clips), expected)


def test_small_clips_train_and_eval_and_gradient() -> None:
    torch.manual_seed(0)
    network = R2Plus1D(widths=(4, 8, 8, 16), stem_kernel=(3, 3, 3))
    clips = torch.rand(2, 3, 8, 48, 48)
    assert network.feature_map(clips).shape == (2, 16, 1, 3, 3)
    network(clips).square().sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []
    network.eval()
    torch.testing.assert_close(network(clips), network.feature_map(clips).mean(dim=(2, 3, 4)))
    torch.testing.assert_close(network(clips[:1]), network(clips)[:1])
