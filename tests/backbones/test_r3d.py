"""VCOP's R3D: its sizes, and its values against the network written out with functions."""

import itertools
import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_video.backbones.r3d import R3D, ResidualBlock
from ssl_video.utils.errors import InputError


def tiny() -> R3D:
    torch.manual_seed(0)
    return R3D(widths=(12, 24, 48, 96), stem_kernel=(3, 3, 3))


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        network = R3D()
    widths = [64, 128, 256, 512]
    expected = 3 * 3 * 7 * 7 * 64 + 2 * 64  # the stem and its norm
    expected += 2 * (27 * 64 * 64 + 2 * 64)
    for before, after in itertools.pairwise(widths):
        expected += 27 * before * after + 27 * after * after + before * after + 3 * 2 * after
    assert expected == 14_361_792  # the published count, by the formula
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_more_blocks_add_blocks_without_shortcut() -> None:
    one = sum(parameter.numel() for parameter in R3D(widths=(4, 8), blocks_per_stage=(1, 1)).parameters())
    more = sum(parameter.numel() for parameter in R3D(widths=(4, 8), blocks_per_stage=(2, 3)).parameters())
    assert more - one == 2 * (27 * 4 * 4 + 8) + 2 * 2 * (27 * 8 * 8 + 16)


def test_feature_map_and_features_of_a_paper_clip() -> None:
    with torch.device("meta"):
        network, clips = R3D(), torch.empty(2, 3, 16, 112, 112)
        features = network.feature_map(clips)
        assert features.shape == (2, 512, 2, 7, 7)
        assert functional.max_pool3d(features, (1, 2, 2)).flatten(1).shape == (2, 9216)
        assert network(clips).shape == (2, 512)
    assert network.feature_dim == 512


@pytest.mark.parametrize(
    ("clip", "mapped"), [((8, 48, 48), (1, 3, 3)), ((9, 49, 64), (2, 4, 4)), ((1, 1, 1), (1, 1, 1))]
)
def test_map_sizes_round_up(clip: tuple[int, ...], mapped: tuple[int, ...]) -> None:
    network = tiny().eval()
    assert network.feature_map(torch.zeros(1, 3, *clip)).shape == (1, 96, *mapped)


def written_out(network: nn.Module, clips: Tensor) -> Tensor:
    """R3D with one block per stage, from its weights in their order: the form of the official code."""
    convolutions = iter([module.weight for module in network.modules() if isinstance(module, nn.Conv3d)])
    norms = iter([module for module in network.modules() if isinstance(module, nn.BatchNorm3d)])

    def normed_convolution(x: Tensor, stride: int | tuple[int, int, int]) -> Tensor:
        weight, norm = next(convolutions), next(norms)
        x = functional.conv3d(x, weight, None, stride, tuple(size // 2 for size in weight.shape[2:]))
        centred = x - norm.running_mean.view(-1, 1, 1, 1)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return centred * scale.view(-1, 1, 1, 1) + norm.bias.view(-1, 1, 1, 1)

    x = normed_convolution(clips, (1, 2, 2)).clamp(min=0)
    for stride in (1, 2, 2, 2):
        residual = normed_convolution(normed_convolution(x, stride).clamp(min=0), 1)
        shortcut = normed_convolution(x, stride) if stride == 2 else x
        x = (residual + shortcut).clamp(min=0)
    return x


def test_values_are_those_of_the_network_written_out() -> None:
    network = tiny().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):  # away from the identity that a fresh norm is
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    clips = torch.rand(2, 3, 5, 20, 24, dtype=torch.float64)
    expected = written_out(network, clips)
    torch.testing.assert_close(network.feature_map(clips), expected)
    torch.testing.assert_close(network(clips), expected.sum(dim=(2, 3, 4)) / expected[0, 0].numel())


def test_gradient_reaches_every_parameter() -> None:
    network = tiny()
    network(torch.rand(2, 3, 8, 32, 32)).square().sum().backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


def test_batch_statistics_in_train_and_running_ones_in_eval() -> None:
    network = tiny()
    clips = torch.rand(2, 3, 4, 32, 32)
    network.train()
    alone, together = network(clips[:1]), network(clips)[:1]
    assert not torch.allclose(alone, together, atol=1e-3)
    network.eval()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    torch.testing.assert_close(network(clips[:1]), network(clips)[:1])
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


def test_frame_order_changes_the_features() -> None:
    network = tiny().eval()
    clips = torch.rand(1, 3, 8, 32, 32)
    assert not torch.allclose(network(clips), network(clips.flip(2)), atol=1e-6)


def test_the_tiny_one_is_small_and_fast() -> None:
    network = tiny()
    assert sum(parameter.numel() for parameter in network.parameters()) == 505_764
    clips = torch.rand(4, 3, 8, 48, 48)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        network(clips).sum().backward()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0  # some 0.05 s on one free core


def test_other_numbers_of_channels() -> None:
    network = R3D(widths=(4, 8, 8, 8), in_channels=2)
    assert network(torch.rand(2, 2, 4, 16, 16)).shape == (2, 8)
    with pytest.raises(InputError, match="in_channels=3"):
        network(torch.rand(2, 3, 4, 16, 16))


@pytest.mark.parametrize(
    ("blocks", "widths", "kernel", "words"),
    [
        ((1, 1, 1), (4, 8, 8, 8), (3, 7, 7), "as many entries"),
        ((), (), (3, 7, 7), "at least one"),
        ((1, 0), (4, 8), (3, 7, 7), "at least 1"),
        ((1, 1), (4, 0), (3, 7, 7), "at least 1"),
        ((1, 1), (4, 8), (3, 6, 7), "three odd sizes"),
        ((1, 1), (4, 8), (7, 7), "three odd sizes"),
    ],
)
def test_sizes_that_are_no_network(
    blocks: tuple[int, ...], widths: tuple[int, ...], kernel: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        R3D(blocks_per_stage=blocks, widths=widths, stem_kernel=kernel)


def test_a_block_that_keeps_the_size_keeps_the_channels() -> None:
    with pytest.raises(ValueError, match="in_channels=4 must equal out_channels=8"):
        ResidualBlock(4, 8, halve=False, convolution=R3D.convolution)
