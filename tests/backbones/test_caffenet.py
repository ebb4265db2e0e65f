"""CaffeNet: the sizes, the layers and the initial weights of the three methods' networks."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_video.backbones.caffenet import CaffeNet, Init
from ssl_video.modules.sync_batch_norm import convert
from ssl_video.utils.errors import InputError

CONVOLUTIONS = (96 * 3 * 121 + 96) + (256 * 48 * 25 + 256) + (384 * 256 * 9 + 384) + (384 * 192 * 9 + 384)
CONVOLUTIONS += 256 * 192 * 9 + 256


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def meta(**sizes: object) -> CaffeNet:
    with torch.device("meta"):
        return CaffeNet(**sizes)  # type: ignore[arg-type]


def test_shuffle_and_learn() -> None:
    network = meta()
    assert CONVOLUTIONS == 2_334_080
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert count(network) == CONVOLUTIONS + (9216 * 4096 + 4096) + (4096 * 4096 + 4096)  # its batch norm has none
    with torch.device("meta"):
        features = torch.cat([network(torch.empty(2, 3, 1, 227, 227)) for _ in range(3)], dim=1)
    assert features.shape == (2, 12288)


def test_opn() -> None:
    network = meta(input_size=80, fully_connected=[1024], batch_norm="affine", init="opn")
    assert count(network) == CONVOLUTIONS + (1024 * 1024 + 1024) + 2 * (384 + 384 + 256 + 1024)
    with torch.device("meta"):
        assert network(torch.empty(2, 3, 4, 80, 80)).shape == (2, 1024)


def test_o3n() -> None:
    network = meta(fully_connected=[128], batch_norm="none", encoding="stack_of_differences", num_frames=6)
    assert count(network) == CONVOLUTIONS + 96 * 12 * 121 + (9216 * 128 + 128)
    assert network.convolutions[0][0].in_channels == 15  # type: ignore[index]
    with torch.device("meta"):
        assert network(torch.empty(2, 3, 6, 227, 227)).shape == (2, 128)


@pytest.mark.parametrize(
    ("size", "ceil", "floor"), [(80, 2, 1), (112, 3, 2), (224, 6, 5), (227, 6, 6), (128, None, None), (67, None, None)]
)
@pytest.mark.parametrize("ceil_mode", [True, False])
def test_map_after_pool5_rounds_up_as_caffe_does(
    size: int, ceil: int | None, floor: int | None, ceil_mode: bool
) -> None:
    network = meta(fully_connected=[], ceil_mode=ceil_mode)
    with torch.device("meta"):
        *_, height, width = network.feature_map(torch.empty(1, 3, 1, size, size)).shape
    assert height == width == network.map_size(size)
    expected = ceil if ceil_mode else floor
    assert expected is None or height == expected


@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(11, 4), (5, 1), (3, 2)])
def test_smallest_frame_of_the_convolutions_alone(ceil_mode: bool, kernel: int, stride: int) -> None:
    network = meta(fully_connected=[], ceil_mode=ceil_mode, stem_kernel=kernel, stem_stride=stride).eval()
    size = network.min_size
    assert (network.map_size(size), network.map_size(size - 1)) == (1, 0)
    assert network.feature_map(torch.empty(1, 3, 1, size, size, device="meta")).shape == (1, 256, 1, 1, 1)
    with pytest.raises(RuntimeError, match=r"too small|greater"):
        network.convolutions(torch.empty(1, 3, size - 1, size - 1, device="meta"))
    with pytest.raises(InputError, match="must be at least"):
        network(torch.empty(1, 3, 1, size - 1, size, device="meta"))


def small(**sizes: object) -> CaffeNet:
    standard: dict[str, object] = {
        "widths": (4, 6, 8, 8, 6),
        "fully_connected": (10, 12),
        "input_size": 67,
        "init": "he",
    }
    return CaffeNet(**{**standard, **sizes})  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_norm", ["none", "plain", "affine"])
def test_values_are_those_of_the_network_written_out(batch_norm: str) -> None:
    network = small(batch_norm=batch_norm, input_size=83).double().eval()
    layers = iter([layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)])
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == (0 if batch_norm == "none" else 5)
    for norm in norms:
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        for weight in norm.parameters():
            nn.init.uniform_(weight, 0.5, 2)
    norm_of = iter(norms)

    def after(x: torch.Tensor) -> torch.Tensor:
        norm = next(norm_of, None)
        if norm is not None:
            shape = (1, -1) + (1,) * (x.ndim - 2)
            x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
            if batch_norm == "affine":
                x = x * norm.weight.view(shape) + norm.bias.view(shape)
        return x.clamp(min=0)

    def pool(x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    def lrn(x: torch.Tensor) -> torch.Tensor:
        squares = functional.pad(x.square(), (0, 0, 0, 0, 2, 2))
        return x / (1 + 1e-4 / 5 * sum(squares[:, i : i + x.shape[1]] for i in range(5))) ** 0.75

    clips = 60 * torch.randn(3, 3, 1, 83, 83, dtype=torch.float64)
    weights = [next(layers) for _ in range(7)]
    x = lrn(pool(functional.conv2d(clips[:, :, 0], weights[0].weight, weights[0].bias, stride=4).clamp(min=0)))
    x = lrn(pool(functional.conv2d(x, weights[1].weight, weights[1].bias, padding=2, groups=2).clamp(min=0)))
    x = after(functional.conv2d(x, weights[2].weight, weights[2].bias, padding=1))
    x = after(functional.conv2d(x, weights[3].weight, weights[3].bias, padding=1, groups=2))
    x = pool(after(functional.conv2d(x, weights[4].weight, weights[4].bias, padding=1, groups=2)))
    assert x.shape == (3, 6, 2, 2)
    for linear in weights[5:]:
        x = after(functional.linear(x.flatten(1), linear.weight, linear.bias))
    assert (x > 0).any()
    torch.testing.assert_close(network(clips), x)
    assert network.feature_map(clips).shape == (3, 12, 1, 1, 1)


def test_features_without_linear_layers_are_the_mean_of_the_last_map() -> None:
    network = small(fully_connected=()).eval()
    clips = torch.randn(2, 3, 4, 90, 112)
    assert network.feature_dim == 6
    assert network.feature_map(clips).shape == (2, 6, 4, 2, 3)
    torch.testing.assert_close(network(clips), network.feature_map(clips).mean(dim=(2, 3, 4)))


@pytest.mark.parametrize(
    ("init", "ones"), [("caffenet", [0, 1, 0, 1, 1, 1, 1]), ("opn", [0, 0, 0, 0, 0, 1, 1]), ("he", [0] * 7)]
)
def test_initial_weights(init: Init, ones: list[int]) -> None:
    network = CaffeNet(widths=(32, 48, 64, 64, 48), fully_connected=(128, 128), input_size=80, init=init)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer, one in zip(layers, ones, strict=True):
        assert layer.bias is not None
        assert layer.bias.unique().tolist() == [one]
        fan_in = layer.weight[0].numel()
        std = (2 / fan_in) ** 0.5 if init == "he" else 0.005 if isinstance(layer, nn.Linear) else 0.01
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert abs(layer.weight.mean().item()) < 0.05 * std


def test_batch_norm_of_caffe() -> None:
    norms = [layer for layer in meta().modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [384, 384, 256, 4096, 4096]
    assert {(norm.eps, norm.momentum, norm.affine) for norm in norms} == {(1e-5, 0.001, False)}


def test_dropout_follows_every_linear_layer_in_training_only() -> None:
    network, clips = small(batch_norm="none", dropout=0.9), torch.randn(8, 3, 1, 67, 67)
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.9, 0.9]
    assert not torch.equal(network(clips), network(clips))
    network.eval()
    torch.testing.assert_close(network(clips), network(clips), rtol=0, atol=0)


def test_frames_of_a_batch_do_not_mix_in_eval_mode() -> None:
    network, clips = small().eval(), torch.randn(2, 3, 5, 67, 67)
    singles = torch.stack([network(clips[:, :, t : t + 1]) for t in range(5)], dim=1)
    torch.testing.assert_close(network.frame_features(clips), singles, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_weight() -> None:
    network = small(batch_norm="affine", dropout=0.0)
    network(torch.randn(6, 3, 2, 67, 67)).square().sum().backward()
    weights = {name: weight for name, weight in network.named_parameters() if name.endswith("weight")}
    assert len(weights) == 7 + 5
    assert [name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()] == []


def test_batch_norm_without_scale_can_be_synchronised() -> None:
    network, clips = small(dropout=0.0), torch.randn(4, 3, 1, 67, 67)
    expected = network(clips)
    torch.testing.assert_close(convert(network)(clips), expected)


@pytest.mark.parametrize(("height", "width"), [(67, 68), (80, 80), (40, 40)])
def test_linear_layers_take_frames_of_one_size(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{height}x{width} pixels must be 67x67") as refusal:
        small()(torch.zeros(2, 3, 1, height, width))
    assert "fully_connected=[]" in str(refusal.value)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"widths": (4, 4, 4, 4)}, "must be five"),
        ({"widths": (4, 4, 0, 4, 4)}, "at least 1"),
        ({"fully_connected": (0,)}, "at least 1"),
        ({"stem_stride": 0}, "stem_stride=0"),
        ({"widths": (4, 6, 8, 8, 5)}, "divisible by groups=2"),
        ({"input_size": 20}, "input_size=20 must be at least"),
        ({"batch_norm": "scaled"}, "batch_norm='scaled' must be one of none, plain, affine"),
        ({"init": "zeros"}, "init='zeros' one of caffenet, opn, he"),
    ],
)
def test_sizes_that_are_no_network(sizes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small(**sizes)
