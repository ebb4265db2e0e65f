"""Published files of other projects: torchvision's, PySlowFast's and those of clip order prediction.

Nothing is downloaded: torchvision's networks are random ones, and the other projects' files are made of the names and
sizes of their layer tables. For these, the released network is written out as a function of its state dict.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import video

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.weights import load_tensors, load_weights, match_tensors
from ssl_video.utils.errors import InputError
from support.weights import saved

CONF = Path(__file__).parents[2] / "conf" / "backbone"
State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def backbone_of(preset: str) -> Backbone:
    backbone: Backbone = instantiate(OmegaConf.load(CONF / f"{preset}.yaml"))
    return backbone


# --- torchvision ------------------------------------------------------------------------------------------------------

HEADS = {
    "r3d_18": ["fc.weight", "fc.bias"],
    "mc3_18": ["fc.weight", "fc.bias"],
    "r2plus1d_18": ["fc.weight", "fc.bias"],
    "s3d": ["classifier.1.weight", "classifier.1.bias"],
    "mvit_v2_s": ["head.1.weight", "head.1.bias"],
    "swin3d_t": ["head.weight", "head.bias"],
}


def torchvision_network(name: str) -> nn.Module:
    network: nn.Module = getattr(video, name)(weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def last_map(name: str, network: Any, clips: Tensor) -> Tensor:
    """What the network's own forward pass holds before its pooling, [N,D,t,h,w]; of MViT its tokens [N,L,D]."""
    seen: list[Tensor] = []
    layer = {"s3d": "features", "mvit_v2_s": "norm", "swin3d_t": "norm"}.get(name, "layer4")
    handle = network.get_submodule(layer).register_forward_hook(lambda module, given, output: seen.append(output))
    network(clips)
    handle.remove()
    if name == "mvit_v2_s":
        return seen[0][:, 1:]  # without the class token
    return seen[0].permute(0, 4, 1, 2, 3) if name == "swin3d_t" else seen[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in HEADS if name != "mvit_v2_s"])
@torch.no_grad()
def test_torchvisions_networks_give_the_same_features(tmp_path: Path, name: str) -> None:
    network = torchvision_network(name)
    backbone = backbone_of(name).eval()
    loaded = load_weights(backbone, saved(network.state_dict(), tmp_path))
    assert (loaded.matched, loaded.missing, loaded.unexpected) == (loaded.total, [], HEADS[name])
    # The pooling of torchvision's S3D takes no smaller clip.
    clips = torch.rand(1, 3, 16, 224, 224) if name == "s3d" else torch.rand(1, 3, 4, 40, 48)
    expected = last_map(name, network, clips)
    torch.testing.assert_close(backbone.feature_map(clips), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(backbone(clips), expected.mean(dim=(2, 3, 4)), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_each_tensor_of_torchvisions_mvit_has_its_place(tmp_path: Path) -> None:
    network, backbone = torchvision_network("mvit_v2_s"), backbone_of("mvit_v2_s")
    loaded = load_weights(backbone, saved(network.state_dict(), tmp_path))
    assert (loaded.matched, loaded.missing, loaded.unexpected) == (loaded.total, [], HEADS["mvit_v2_s"])
    own = backbone.state_dict()
    assert all(torch.equal(own[f"network.{n}"], t) for n, t in network.state_dict().items() if "head." not in n)


@pytest.mark.slow
@torch.no_grad()
def test_torchvisions_mvit_gives_the_same_tokens() -> None:
    """Of clips of the one size that torchvision's takes."""
    network, backbone = torchvision_network("mvit_v2_s"), backbone_of("mvit_v2_s").eval()
    load_tensors(backbone, network.state_dict(), source="theirs")
    clips = torch.rand(1, 3, 16, 224, 224)
    expected = last_map("mvit_v2_s", network, clips)
    found = backbone.feature_map(clips).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# --- the released networks of other projects, as functions of their state dict ----------------------------------------


def norm_shapes(name: str, width: int) -> Shapes:
    vectors = {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def random_state(shapes: Shapes) -> State:
    """Values under which no layer's output vanishes or explodes."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            state[name] = 0.5 + torch.rand(shape)
        else:
            fan_in = max(1, torch.Size(shape[1:]).numel())
            state[name] = torch.randn(shape) * (2 / fan_in) ** 0.5 if len(shape) > 1 else 0.1 * torch.randn(shape)
    return state


def conv(state: State, name: str, x: Tensor, stride: tuple[int, ...] = (1, 1, 1)) -> Tensor:
    weight = state[f"{name}.weight"]
    padding = [size // 2 for size in weight.shape[2:]]
    return F.conv3d(x, weight, state.get(f"{name}.bias"), stride, padding)  # type: ignore[arg-type]


def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var, scale, shift = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, scale, shift)


SLOW_BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}


def slow_r50_shapes() -> Shapes:
    """PySlowFast's names, sizes of the table of the slow pathway."""
    shapes: Shapes = {"s1.pathway0_stem.conv.weight": (64, 3, 1, 7, 7)} | norm_shapes("s1.pathway0_stem.bn", 64)
    before = 64
    for stage, blocks in SLOW_BLOCKS.items():
        inner, time = 64 * 2 ** (stage - 2), 3 if stage >= 4 else 1
        for block in range(blocks):
            name = f"s{stage}.pathway0_res{block}"
            if block == 0:
                shapes[f"{name}.branch1.weight"] = (4 * inner, before, 1, 1, 1)
                shapes |= norm_shapes(f"{name}.branch1_bn", 4 * inner)
            shapes[f"{name}.branch2.a.weight"] = (inner, before, time, 1, 1)
            shapes |= norm_shapes(f"{name}.branch2.a_bn", inner)
            shapes[f"{name}.branch2.b.weight"] = (inner, inner, 1, 3, 3)
            shapes |= norm_shapes(f"{name}.branch2.b_bn", inner)
            shapes[f"{name}.branch2.c.weight"] = (4 * inner, inner, 1, 1, 1)
            shapes |= norm_shapes(f"{name}.branch2.c_bn", 4 * inner)
            before = 4 * inner
    return shapes


def slow_r50(state: State, x: Tensor) -> Tensor:
    x = norm(state, "s1.pathway0_stem.bn", conv(state, "s1.pathway0_stem.conv", x, (1, 2, 2))).relu()
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, blocks in SLOW_BLOCKS.items():
        for block in range(blocks):
            name = f"s{stage}.pathway0_res{block}"
            stride = (1, 2, 2) if block == 0 and stage > 2 else (1, 1, 1)
            y = norm(state, f"{name}.branch2.a_bn", conv(state, f"{name}.branch2.a", x)).relu()
            y = norm(state, f"{name}.branch2.b_bn", conv(state, f"{name}.branch2.b", y, stride)).relu()
            y = norm(state, f"{name}.branch2.c_bn", conv(state, f"{name}.branch2.c", y))
            if block == 0:
                x = norm(state, f"{name}.branch1_bn", conv(state, f"{name}.branch1", x, stride))
            x = (x + y).relu()
    return x


C3D_LAYERS = {"1": 64, "2": 128, "3a": 256, "3b": 256, "4a": 512, "4b": 512, "5a": 512, "5b": 512}


def c3d_shapes() -> Shapes:
    shapes: Shapes = {}
    before = 3
    for name, width in C3D_LAYERS.items():
        shapes |= {f"conv{name}.weight": (width, before, 3, 3, 3), f"conv{name}.bias": (width,)}
        shapes |= norm_shapes(f"bn{name}", width)
        before = width
    return shapes


def c3d(state: State, x: Tensor) -> Tensor:
    for name in C3D_LAYERS:
        x = norm(state, f"bn{name}", conv(state, f"conv{name}", x)).relu()
        if name in ("1", "2", "3b", "4b"):
            x = F.max_pool3d(x, (1, 2, 2) if name == "1" else 2)
    return x


def r3d_shapes(factorised: bool, blocks: int = 1) -> Shapes:
    """Names of the released R3D, or of R(2+1)D, whose convolutions have 83, 144, 230, 288, ... channels within."""

    def convolution(name: str, width: int, before: int, kernel: tuple[int, int, int]) -> Shapes:
        if not factorised:
            return {f"{name}.temporal_spatial_conv.weight": (width, before, *kernel)}
        time, high, wide = kernel
        middle = time * high * wide * before * width // (high * wide * before + time * width)
        return {
            f"{name}.spatial_conv.weight": (middle, before, 1, high, wide),
            **norm_shapes(f"{name}.bn", middle),
            f"{name}.temporal_conv.weight": (width, middle, time, 1, 1),
        }

    shapes = convolution("conv1", 64, 3, (3, 7, 7)) | norm_shapes("bn1", 64)
    before = 64
    for stage, width in {2: 64, 3: 128, 4: 256, 5: 512}.items():
        for block in range(blocks):
            name = f"conv{stage}.block1" if block == 0 else f"conv{stage}.blocks.{block - 1}"
            if block == 0 and stage > 2:
                shapes |= convolution(f"{name}.downsampleconv", width, before, (1, 1, 1))
                shapes |= norm_shapes(f"{name}.downsamplebn", width)
            shapes |= convolution(f"{name}.conv1", width, before, (3, 3, 3)) | norm_shapes(f"{name}.bn1", width)
            shapes |= convolution(f"{name}.conv2", width, width, (3, 3, 3)) | norm_shapes(f"{name}.bn2", width)
            before = width
    return shapes


def r3d(state: State, x: Tensor, blocks: int = 1) -> Tensor:
    def convolution(name: str, x: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        if f"{name}.temporal_spatial_conv.weight" in state:
            return conv(state, f"{name}.temporal_spatial_conv", x, stride)
        x = norm(state, f"{name}.bn", conv(state, f"{name}.spatial_conv", x, (1, *stride[1:]))).relu()
        return conv(state, f"{name}.temporal_conv", x, (stride[0], 1, 1))

    x = norm(state, "bn1", convolution("conv1", x, (1, 2, 2))).relu()
    for stage in (2, 3, 4, 5):
        for block in range(blocks):
            name = f"conv{stage}.block1" if block == 0 else f"conv{stage}.blocks.{block - 1}"
            halve = block == 0 and stage > 2
            stride = (2, 2, 2) if halve else (1, 1, 1)
            y = norm(state, f"{name}.bn1", convolution(f"{name}.conv1", x, stride)).relu()
            y = norm(state, f"{name}.bn2", convolution(f"{name}.conv2", y))
            if halve:
                x = norm(state, f"{name}.downsamplebn", convolution(f"{name}.downsampleconv", x, stride))
            x = (x + y).relu()
    return x


RELEASED: dict[str, tuple[Shapes, Callable[[State, Tensor], Tensor], int]] = {
    "slow_r50": (slow_r50_shapes(), slow_r50, 31_634_496),
    "c3d": (c3d_shapes(), c3d, 27_661_440),
    "r3d": (r3d_shapes(False), r3d, 14_361_792),
    "r2plus1d": (r3d_shapes(True), r3d, 14_365_303),
    "r3d_vcop_18": (r3d_shapes(False, 2), lambda state, x: r3d(state, x, 2), 33_166_272),
}
WRAPPED: dict[str, Callable[[State], dict[str, Any]]] = {
    # As PySlowFast saves a classifier, and its contrastive model with the momentum copy beside the network.
    "slowfast": lambda state: {
        "epoch": 3,
        "model_state": {**state, "head.projection.weight": torch.zeros(4, 9), "head.projection.bias": torch.zeros(4)},
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "cfg": "NUM_GPUS: 8",
    },
    "contrastive_ssl": lambda state: {
        "model_state": {
            **{f"backbone.{name}": tensor for name, tensor in state.items()},
            "backbone.head.projection.weight": torch.zeros(4, 9),
            "ptr": torch.zeros(1),
            "queue_x": torch.zeros(8, 4),
            **{f"backbone_hist.{name}": torch.zeros_like(tensor) for name, tensor in state.items()},
        },
        "cfg": "NUM_GPUS: 8",
    },
    # As clip order prediction saves its network, the same under DataParallel, and a classifier made of it.
    "vcop": lambda state: {
        **{f"base_network.{name}": tensor for name, tensor in state.items()},
        "fc7.weight": torch.zeros(512, 1024),
        "fc8.bias": torch.zeros(6),
    },
    "vcop_parallel": lambda state: {f"module.base_network.{name}": tensor for name, tensor in state.items()},
    "vcop_classifier": lambda state: {**state, "linear.weight": torch.zeros(9, 512), "linear.bias": torch.zeros(9)},
}


@pytest.mark.parametrize("name", list(RELEASED))
def test_the_tables_have_the_published_numbers_of_parameters(name: str) -> None:
    shapes, _, parameters = RELEASED[name]
    learnt = [shape for key, shape in shapes.items() if key.endswith(("weight", "bias"))]
    assert sum(torch.Size(shape).numel() for shape in learnt) == parameters


def test_the_table_of_r2plus1d_has_the_published_channels_within() -> None:
    shapes = r3d_shapes(True)
    within = [shape[0] for name, shape in shapes.items() if name.endswith("spatial_conv.weight")]
    assert within == [83, 144, 144, 42, 230, 288, 85, 460, 576, 170, 921, 1152]


@pytest.mark.parametrize(
    ("name", "wrapping"),
    [
        ("slow_r50", "slowfast"),
        ("slow_r50", "contrastive_ssl"),
        ("c3d", "vcop"),
        ("r3d", "vcop_parallel"),
        ("r2plus1d", "vcop_classifier"),
        ("r3d_vcop_18", "vcop"),
    ],
)
@torch.no_grad()
def test_released_files_give_the_released_networks_features(tmp_path: Path, name: str, wrapping: str) -> None:
    shapes, released, _ = RELEASED[name]
    state = random_state(shapes)
    backbone = backbone_of(name).eval()
    loaded = load_weights(backbone, saved(WRAPPED[wrapping](state), tmp_path, "weights.pyth"))
    assert loaded.matched == loaded.total == sum(not key.endswith("num_batches_tracked") for key in shapes)
    assert loaded.missing == []
    unknown = ("backbone.head.", "backbone_hist.", "head.", "fc7", "fc8", "linear.", "queue_x", "ptr")
    assert [key for key in loaded.unexpected if not key.startswith(unknown)] == []
    clips = torch.randn(1, 3, 8, 32, 32)
    expected = released(state, clips)
    assert expected.std() > 1e-3
    torch.testing.assert_close(backbone.feature_map(clips), expected, atol=1e-4, rtol=1e-4)


def test_files_of_before_torch_saved_archives(tmp_path: Path) -> None:
    """As those of 2019 are."""
    state = random_state(r3d_shapes(False))
    path = tmp_path / "old.pt"
    torch.save(WRAPPED["vcop"](state), path, _use_new_zipfile_serialization=False)
    assert path.read_bytes()[:2] != b"PK"
    backbone = backbone_of("r3d")
    assert load_weights(backbone, path).missing == []
    assert torch.equal(backbone.state_dict()["stem.0.weight"], state["conv1.temporal_spatial_conv.weight"])


# --- refusals ---------------------------------------------------------------------------------------------------------


def on_meta(shapes: Shapes) -> State:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", list(RELEASED))
def test_one_tensor_of_another_shape_is_refused(name: str) -> None:
    shapes = RELEASED[name][0]
    with torch.device("meta"):
        backbone = backbone_of(name)
    counted = [key for key in shapes if not key.endswith("num_batches_tracked")]
    wrong = next(key for key in counted if len(shapes[key]) == 5)
    other = on_meta({**shapes, wrong: (*shapes[wrong][:-1], 9)})
    found = match_tensors(backbone, other)
    assert (found.matched, len(found.missing), found.unexpected) == (len(counted) - 1, 1, [wrong])
    assert found.misshapen == found.missing
    words = rf"^checkpoint=a\.pth has {len(counted) - 1} of the {len(counted)} tensors .*; of another shape: "
    with pytest.raises(InputError, match=words + re.escape(found.missing[0])):
        load_tensors(backbone, other, source="checkpoint=a.pth")


@pytest.mark.parametrize("name", list(RELEASED))
def test_more_than_five_in_a_hundred_missing_are_refused(name: str) -> None:
    shapes = RELEASED[name][0]
    with torch.device("meta"):
        backbone = backbone_of(name)
    counted = [key for key in shapes if not key.endswith("num_batches_tracked")]
    least = math.ceil(0.95 * len(counted))
    for left, is_enough in ((least, True), (least - 1, False)):
        found = match_tensors(backbone, on_meta({key: shapes[key] for key in counted[-left:]}))
        assert (found.matched, found.total, found.is_enough) == (left, len(counted), is_enough)
        assert len(found.missing) == len(counted) - left
    few = on_meta({key: shapes[key] for key in counted[1 - least :]})
    with pytest.raises(InputError, match=rf"has {least - 1} of the {len(counted)} tensors .* must have 95% of them"):
        load_tensors(backbone, few, source="checkpoint=a.pth")


@pytest.mark.parametrize(
    ("file", "backbone"), [("r3d", "r2plus1d"), ("r3d", "r3d_18"), ("c3d", "r3d"), ("slow_r50", "cvrl_r3d_50")]
)
def test_a_file_of_another_network_is_refused(file: str, backbone: str) -> None:
    """CVRL's R3D-50 differs from Slow-R50 in the stem, and in which convolution of a block has time."""
    with torch.device("meta"), pytest.raises(InputError, match=r"must have 95% of them"):
        load_tensors(backbone_of(backbone), on_meta(RELEASED[file][0]), source="checkpoint=a.pth")
