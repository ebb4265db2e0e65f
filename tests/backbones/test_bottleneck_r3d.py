"""Slow-R50 and CVRL's R3D: the published counts layer by layer, and values against the network written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_video.backbones.bottleneck_r3d import BottleneckR3D

CVRL = {"stem_kernel": (5, 7, 7), "stem_stride": (2, 2, 2)}


def small(**sizes: object) -> BottleneckR3D:
    torch.manual_seed(0)
    return BottleneckR3D(**{"blocks_per_stage": (1, 2, 1, 1), "base_width": 4, **sizes})  # type: ignore[arg-type]


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_slow_r50_has_the_published_counts_stage_by_stage() -> None:
    with torch.device("meta"):
        network = BottleneckR3D()
    stages = [count(network.conv1) + count(network.bn1)]
    stages += [count(network.get_submodule(f"layer{number}")) for number in (1, 2, 3, 4)]
    assert stages == [9_536, 215_808, 1_219_584, 9_981_952, 20_207_616]
    assert count(network) == 31_634_496
    assert count(network) + 2048 * 400 + 400 == 32_454_096


def formula(blocks: tuple[int, ...], *, width: int = 64, stem: tuple[int, int, int], time: tuple[int, ...]) -> int:
    """Weights of the convolutions and two per channel of each norm, summed over the blocks."""
    total = 3 * stem[0] * stem[1] * stem[2] * width + 2 * width
    before = width
    for stage, (number, kernel) in enumerate(zip(blocks, time, strict=True)):
        inner, out = width * 2**stage, 4 * width * 2**stage
        total += before * out + 2 * out  # the projection shortcut
        for _ in range(number):
            total += kernel * before * inner + 9 * inner * inner + inner * out + 2 * (inner + inner + out)
            before = out
    return total


@pytest.mark.parametrize(
    ("blocks", "multiplier", "expected"),
    [
        ((3, 4, 6, 3), 1, 31_672_128),
        ((3, 4, 23, 3), 1, 59_577_152),
        ((3, 8, 36, 3), 1, 82_036_544),
        ((3, 4, 6, 3), 2, 126_488_192),
        ((3, 4, 6, 3), 4, 505_552_128),
        ((3, 8, 36, 3), 2, 327_749_248),
    ],
)
def test_cvrl_networks_have_the_counts_of_their_formula(
    blocks: tuple[int, ...], multiplier: int, expected: int
) -> None:
    with torch.device("meta"):
        network = BottleneckR3D(blocks_per_stage=blocks, width_multiplier=multiplier, **CVRL)
    assert network.feature_dim == 2048 * multiplier
    assert formula(blocks, width=64 * multiplier, stem=(5, 7, 7), time=(1, 1, 3, 3)) == expected
    assert count(network) == expected


@pytest.mark.parametrize(
    ("sizes", "clip", "shape"),
    [
        ({}, (8, 224, 224), (8, 7, 7)),
        (CVRL, (16, 224, 224), (8, 7, 7)),
        (CVRL, (32, 224, 224), (16, 7, 7)),
        ({}, (8, 256, 256), (8, 8, 8)),
    ],
)
def test_feature_maps_of_the_papers(
    sizes: dict[str, tuple[int, int, int]], clip: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        network, clips = BottleneckR3D(**sizes), torch.empty(1, 3, *clip)
        assert network.feature_map(clips).shape == (1, 2048, *shape)
        assert network(clips).shape == (1, 2048)


def test_kernels_and_strides_of_slow_r50() -> None:
    with torch.device("meta"):
        network = BottleneckR3D()
    kernels = {name: module.kernel_size for name, module in network.named_modules() if isinstance(module, nn.Conv3d)}
    in_time = [name for name, kernel in kernels.items() if kernel[0] == 3]
    # Nine blocks of the last two stages, always the first convolution.
    assert in_time == [f"layer3.{block}.conv1" for block in range(6)] + [f"layer4.{block}.conv1" for block in range(3)]
    strides = {name: module.stride for name, module in network.named_modules() if isinstance(module, nn.Conv3d)}
    strided = [name for name, stride in strides.items() if stride != (1, 1, 1)]
    assert strided == ["conv1", *(f"layer{n}.0.{part}" for n in (2, 3, 4) for part in ("conv2", "downsample.0"))]
    assert {strides[name] for name in strided} == {(1, 2, 2)}
    assert {module.eps for module in network.modules() if isinstance(module, nn.BatchNorm3d)} == {1e-5}


def test_time_may_sit_in_the_second_convolution() -> None:
    network = small(time_in="second")
    kernels = {name: module.kernel_size for name, module in network.named_modules() if isinstance(module, nn.Conv3d)}
    assert [name for name, kernel in kernels.items() if kernel == (3, 3, 3)] == ["layer3.0.conv2", "layer4.0.conv2"]
    assert network(torch.rand(1, 3, 4, 32, 32)).shape == (1, 128)


def test_msra_initialisation_and_no_zero_gamma() -> None:
    network = BottleneckR3D(blocks_per_stage=(1, 1), temporal_kernels=(1, 3), base_width=64)
    weight = network.get_parameter("layer2.0.conv2.weight")
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)  # fan out: 128 channels of 3x3
    gammas = [module.weight for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    assert all((gamma == 1).all() for gamma in gammas)


def test_values_are_those_of_the_network_written_out() -> None:
    network = small().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    state = network.state_dict()

    def conv_norm(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"{conv}.weight"]
        padding = tuple(size // 2 for size in weight.shape[2:])
        x = functional.conv3d(x, weight, stride=(1, stride, stride), padding=padding)
        return (x - state[f"{norm}.running_mean"].view(-1, 1, 1, 1)) / (1 + 1e-5) ** 0.5

    clips = torch.rand(2, 3, 5, 35, 40, dtype=torch.float64)
    x = conv_norm(clips, "conv1", "bn1", stride=2).clamp(min=0)
    x = functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for block, stride in [("layer1.0", 1), ("layer2.0", 2), ("layer2.1", 1), ("layer3.0", 2), ("layer4.0", 2)]:
        y = conv_norm(x, f"{block}.conv1", f"{block}.bn1").clamp(min=0)
        y = conv_norm(y, f"{block}.conv2", f"{block}.bn2", stride).clamp(min=0)
        y = conv_norm(y, f"{block}.conv3", f"{block}.bn3")
        if f"{block}.downsample.0.weight" in state:
            x = conv_norm(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
        x = (x + y).clamp(min=0)
    assert x.shape == (2, 128, 5, 2, 2)
    torch.testing.assert_close(network.feature_map(clips), x)
    torch.testing.assert_close(network(clips), x.mean(dim=(2, 3, 4)))


def test_gradient_reaches_every_parameter() -> None:
    network = small()
    network(torch.rand(2, 3, 8, 32, 32)).square().sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_the_smallest_clip() -> None:
    assert small().eval().feature_map(torch.rand(1, 3, 1, 1, 1)).shape == (1, 128, 1, 1, 1)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"blocks_per_stage": (1, 1)}, "as many entries"),
        ({"blocks_per_stage": (), "temporal_kernels": ()}, "as many entries"),
        ({"blocks_per_stage": (1, 0, 1, 1)}, "each at least 1"),
        ({"temporal_kernels": (1, 2, 3, 3)}, "must be odd"),
        ({"stem_kernel": (2, 7, 7)}, "must be odd"),
        ({"stem_kernel": (7, 7)}, "three numbers"),
        ({"stem_stride": (0, 2, 2)}, "three numbers"),
        ({"base_width": 0}, "must be at least 1"),
        ({"time_in": "third"}, "must be 'first' or 'second'"),
    ],
)
def test_sizes_that_are_no_network(sizes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small(**sizes)
