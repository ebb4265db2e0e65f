"""Starting weights: names and prefixes, what is refused, and 2D networks that become 3D ones."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models import video
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import Bottleneck as Bottleneck2D

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.bottleneck_r3d import BottleneckR3D
from ssl_video.backbones.r3d import R3D
from ssl_video.backbones.s3d import S3D
from ssl_video.backbones.torchvision_transformers import Swin3D
from ssl_video.backbones.torchvision_video import TorchvisionVideo
from ssl_video.backbones.tsm_resnet import TSMResNet
from ssl_video.backbones.vit import ViT
from ssl_video.backbones.weights import Inflate, load_weights, read_tensors
from ssl_video.utils.checkpoint import save_backbone
from ssl_video.utils.errors import InputError


def r3d(seed: int) -> R3D:
    torch.manual_seed(seed)
    return R3D(widths=(4, 6, 8, 10), stem_kernel=(3, 3, 3))


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(one.state_dict()[name], tensor) for name, tensor in other.state_dict().items())


def saved(content: Any, folder: Path, name: str = "weights.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


# --- which files, and which names -------------------------------------------------------------------------------------


def test_a_backbone_of_ours(tmp_path: Path) -> None:
    trained, fresh = r3d(1), r3d(2)
    save_backbone(tmp_path / "backbone.safetensors", trained.state_dict(), config={"name": "r3d"})
    assert not equal(trained, fresh)
    loaded = load_weights(fresh, tmp_path / "backbone.safetensors")
    assert equal(trained, fresh)
    total = sum(not name.endswith("num_batches_tracked") for name in trained.state_dict())
    assert (loaded.matched, loaded.total, loaded.inflated) == (total, total, 0)
    assert (loaded.missing, loaded.unexpected) == ([], [])
    assert str(loaded) == f"{total} of {total} tensors loaded; 0 missing, 0 unexpected"


@pytest.mark.parametrize("nested", [(), ("state_dict",), ("model",), ("model_state",), ("state_dict", "model")])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder_q.net."])
def test_state_dicts_wherever_they_stand_and_behind_any_prefix(
    tmp_path: Path, nested: tuple[str, ...], prefix: str
) -> None:
    trained, fresh = r3d(1), r3d(2)
    content: dict[str, Any] = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    content["head.weight"] = torch.zeros(3)
    for key in reversed(nested):
        content = {key: content, "epoch": 3}
    loaded = load_weights(fresh, saved(content, tmp_path))
    assert equal(trained, fresh)
    assert loaded.unexpected == ["head.weight"]


def test_a_prefix_is_stripped_once_and_where_it_stands(tmp_path: Path) -> None:
    """`module.` inside a name is part of the name."""

    class Wrapped(Backbone):
        feature_dim = 1

        def __init__(self) -> None:
            super().__init__()
            self.module = nn.ModuleDict({"module": nn.Linear(2, 1), "other": nn.Linear(2, 1)})

        def feature_map(self, clips: Tensor) -> Tensor:
            return clips

    trained, fresh = Wrapped(), Wrapped()
    load_weights(fresh, saved({f"module.{name}": t for name, t in trained.state_dict().items()}, tmp_path))
    assert equal(trained, fresh)


def test_of_a_moco_checkpoint_the_backbone_is_taken_and_not_its_momentum_copy(tmp_path: Path) -> None:
    trained, momentum, fresh = r3d(1), r3d(3), r3d(2)
    content = {f"backbone.{name}": tensor for name, tensor in trained.state_dict().items()}
    content |= {f"momentum_encoder.0.{name}": tensor for name, tensor in momentum.state_dict().items()}
    loaded = load_weights(fresh, saved({"state_dict": content}, tmp_path, "last.ckpt"))
    assert equal(trained, fresh)
    assert all(name.startswith("momentum_encoder.0.") for name in loaded.unexpected)
    assert len(loaded.unexpected) == len(momentum.state_dict())


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "mc3_18"])
def test_torchvisions_names_of_the_residual_networks(name: Any) -> None:
    with torch.device("meta"):
        theirs, ours = getattr(video, name)(weights=None), TorchvisionVideo(name=name)
    in_video = {ours.other_names(own)[0]: tensor.shape for own, tensor in ours.state_dict().items()}
    assert in_video == {name: t.shape for name, t in theirs.state_dict().items() if not name.startswith("fc.")}


@pytest.mark.parametrize("name", ["mc3_18", "s3d"])
def test_torchvisions_own_files(tmp_path: Path, name: Any) -> None:
    network = getattr(video, name)(weights=None).eval()
    backbone = TorchvisionVideo(name=name)
    loaded = load_weights(backbone, saved(network.state_dict(), tmp_path))
    assert loaded.missing == []
    assert loaded.unexpected == (
        ["classifier.1.weight", "classifier.1.bias"] if name == "s3d" else ["fc.weight", "fc.bias"]
    )
    if name != "s3d":
        network.fc = nn.Identity()
        clips = torch.rand(1, 3, 4, 24, 24)
        torch.testing.assert_close(backbone.eval()(clips), network(clips))


def test_prefixes_of_either_side_are_found(tmp_path: Path) -> None:
    s3d = video.s3d(weights=None)
    backbone = S3D(gating=False)
    assert load_weights(backbone, saved(s3d.state_dict(), tmp_path)).missing == []
    assert torch.equal(backbone.layers.state_dict()["0.0.0.weight"], s3d.features.state_dict()["0.0.0.weight"])
    swin = Swin3D(blocks_per_stage=(1, 1), embed_dim=12, num_heads=(1, 2), window=(2, 2, 2))
    published = {name.removeprefix("network."): torch.rand_like(t.float()) for name, t in swin.state_dict().items()}
    assert load_weights(swin, saved(published, tmp_path)).missing == []


def test_pyslowfasts_names(tmp_path: Path) -> None:
    slow = BottleneckR3D(blocks_per_stage=(1, 2, 1, 1), base_width=2)
    names = {name: slow.other_names(name)[0] for name in slow.state_dict()}
    assert names["conv1.weight"] == "s1.pathway0_stem.conv.weight"
    assert names["bn1.running_mean"] == "s1.pathway0_stem.bn.running_mean"
    assert names["layer2.1.conv2.weight"] == "s3.pathway0_res1.branch2.b.weight"
    assert names["layer2.1.bn3.bias"] == "s3.pathway0_res1.branch2.c_bn.bias"
    assert names["layer4.0.downsample.0.weight"] == "s5.pathway0_res0.branch1.weight"
    assert names["layer4.0.downsample.1.bias"] == "s5.pathway0_res0.branch1_bn.bias"
    fresh = BottleneckR3D(blocks_per_stage=(1, 2, 1, 1), base_width=2)
    state = {f"backbone.{names[name]}": tensor for name, tensor in slow.state_dict().items()}
    load_weights(fresh, saved({"model_state": state}, tmp_path, "weights.pyth"))
    assert equal(slow, fresh)


def test_files_without_batch_norm_counters_and_in_half_precision(tmp_path: Path) -> None:
    trained, fresh = r3d(1), r3d(2)
    state = {n: t.half() for n, t in trained.state_dict().items() if not n.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "plain.safetensors")
    assert load_weights(fresh, tmp_path / "plain.safetensors").missing == []
    assert fresh.stem[0].weight.dtype == torch.float32
    torch.testing.assert_close(fresh.stem[0].weight, trained.stem[0].weight, atol=1e-3, rtol=1e-3)


def test_memory_format_and_parameters_stay(tmp_path: Path) -> None:
    """An optimizer that holds the parameters must see the loaded values."""
    fresh = r3d(2).to(memory_format=torch.channels_last_3d)
    before = list(fresh.parameters())
    load_weights(fresh, saved(r3d(1).state_dict(), tmp_path))
    assert all(one is other for one, other in zip(before, fresh.parameters(), strict=True))
    weight = fresh.stages[0][0].residual[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_five_in_a_hundred_may_be_missing_and_no_more(tmp_path: Path) -> None:
    trained, fresh = r3d(1), r3d(2)
    names = [name for name in trained.state_dict() if not name.endswith("num_batches_tracked")]
    allowed = int(0.05 * len(names))
    assert allowed >= 1
    state = {name: t for name, t in trained.state_dict().items() if name not in names[-allowed:]}
    loaded = load_weights(fresh, saved(state, tmp_path))
    assert loaded.missing == names[-allowed:]
    assert f"{allowed} missing ({', '.join(names[-allowed:][:3])}" in str(loaded)
    state = {name: t for name, t in trained.state_dict().items() if name not in names[-allowed - 1 :]}
    fresh = r3d(2)
    with pytest.raises(InputError, match=rf"has {len(names) - allowed - 1} of the {len(names)} tensors of R3D"):
        load_weights(fresh, saved(state, tmp_path))
    assert equal(fresh, r3d(2))  # nothing of it was loaded


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        load_weights(r3d(0), saved(S3D(width_multiplier=0.1).state_dict(), tmp_path))
    words = ["has 0 of the", "must have 95% of them", "stem.0.weight", "layers.0.0.0.weight", "choose the backbone="]
    assert [word for word in words if word not in str(refusal.value)] == []
    with pytest.raises(InputError, match="choose the backbone="):  # the names fit, the widths don't
        load_weights(r3d(0), saved(R3D(widths=(4, 6, 8, 12), stem_kernel=(5, 3, 3)).state_dict(), tmp_path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is truncated or not a checkpoint"),
        (b"not a checkpoint", "is truncated or not a checkpoint"),
        (argparse.Namespace(lr=1), r"could run code; it is refused \(it names argparse\.Namespace\)"),
        (torch.zeros(3), "holds a Tensor, but it must hold a state dict"),
        ({"epoch": 3}, "has 0 of the"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_hold_something_else(tmp_path: Path, content: Any, words: str, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    words = words if suffix == ".pth" else "is truncated or not a safetensors file"
    with pytest.raises(InputError, match=words):
        load_weights(r3d(0), path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pth does not exist"):
        read_tensors(tmp_path / "none.pth", source="backbone.weights=none.pth")
    with pytest.raises(InputError, match=r"is a folder; of a run, give its checkpoints/backbone\.safetensors"):
        read_tensors(tmp_path, source="backbone.weights=run")


# --- inflating --------------------------------------------------------------------------------------------------------


def settled(network: nn.Module) -> nn.Module:
    """In evaluation, with statistics that are not those of the start."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def image_map(network: models.ResNet, images: Tensor) -> Tensor:
    """Map images [N,3,H,W] to [N,D,h,w]."""
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    result: Tensor = network.layer4(network.layer3(network.layer2(network.layer1(x))))
    return result


@pytest.mark.parametrize("stem", ["slow", "cvrl"])
def test_a_still_clip_gives_the_2d_networks_features(tmp_path: Path, stem: str) -> None:
    """At every frame, also beside the padding; the temporal kernels of two stages and of CVRL's stem included."""
    blocks = (1, 1, 2, 1)
    image_network: Any = settled(models.ResNet(Bottleneck2D, list(blocks)))
    sizes: dict[str, Any] = {"stem_kernel": (5, 7, 7), "stem_stride": (2, 2, 2)} if stem == "cvrl" else {}
    backbone = BottleneckR3D(blocks_per_stage=blocks, **sizes)
    inflate: Inflate = True if stem == "slow" else "centre"  # two words for the same
    loaded = load_weights(backbone, saved(image_network.state_dict(), tmp_path), inflate=inflate)
    kernels = sum(isinstance(module, nn.Conv3d) for module in backbone.modules())
    assert (loaded.missing, loaded.unexpected, loaded.inflated) == ([], ["fc.weight", "fc.bias"], kernels)
    images = torch.randn(2, 3, 48, 40)
    still = images[:, :, None].expand(-1, -1, 6, -1, -1)
    with torch.no_grad():
        expected, found = image_map(image_network, images), backbone.eval().feature_map(still)
        assert found.shape[2] == (3 if stem == "cvrl" else 6)
        torch.testing.assert_close(found, expected[:, :, None].expand_as(found), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(backbone(still), expected.mean(dim=(2, 3)), atol=1e-4, rtol=1e-4)


def test_inflated_by_the_mean_it_holds_away_from_the_ends_only(tmp_path: Path) -> None:
    blocks = (1, 1)
    image_network: Any = settled(models.ResNet(Bottleneck2D, [1, 1, 1, 1]))
    state = {n: t for n, t in image_network.state_dict().items() if not n.startswith(("layer3", "layer4"))}
    path = saved(state, tmp_path)
    backbone = BottleneckR3D(blocks_per_stage=blocks, temporal_kernels=(1, 3))
    load_weights(backbone, path, inflate="mean")
    weight = backbone.get_parameter("layer2.0.conv1.weight")
    source = image_network.layer2[0].conv1.weight
    assert all(torch.allclose(weight[:, :, time], source / 3) for time in range(3))
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        found = backbone.eval().feature_map(images[:, :, None].expand(-1, -1, 5, -1, -1))
        stem = image_network.maxpool(image_network.relu(image_network.bn1(image_network.conv1(images))))
        expected = image_network.layer2(image_network.layer1(stem))
    same = [torch.allclose(found[:, :, time], expected, atol=1e-4) for time in range(5)]
    assert same == [False, True, True, True, False]


@pytest.mark.parametrize(
    ("image_network", "blocks"),
    [(models.resnet50, (3, 4, 6, 3)), (models.resnet101, (3, 4, 23, 3)), (models.resnet152, (3, 8, 36, 3))],
)
def test_each_name_of_the_2d_resnets_has_its_place(image_network: Any, blocks: tuple[int, ...]) -> None:
    with torch.device("meta"):
        theirs = image_network(weights=None).state_dict()
        ours = BottleneckR3D(blocks_per_stage=blocks).state_dict()
    assert list(theirs)[:-2] == list(ours)
    for name, tensor in ours.items():
        shape = tensor.shape if tensor.ndim < 5 else (*tensor.shape[:2], *tensor.shape[3:])
        assert theirs[name].shape == shape


def test_resnet18_becomes_r3d_18(tmp_path: Path) -> None:
    image_network = models.ResNet(BasicBlock, [2, 2, 2, 2])
    backbone = TorchvisionVideo(name="r3d_18")
    loaded = load_weights(backbone, saved(image_network.state_dict(), tmp_path), inflate=True)
    assert (loaded.missing, loaded.unexpected) == ([], ["fc.weight", "fc.bias"])
    state, source = backbone.state_dict(), image_network.state_dict()
    pairs = {
        "layers.0.0.weight": "conv1.weight",
        "layers.1.1.conv2.0.weight": "layer1.1.conv2.weight",
        "layers.2.0.downsample.0.weight": "layer2.0.downsample.0.weight",
        "layers.4.1.conv1.0.weight": "layer4.1.conv1.weight",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(state[ours].sum(dim=2), source[theirs])
        assert torch.equal(state[ours][:, :, state[ours].shape[2] // 2], source[theirs])
    assert torch.equal(state["layers.3.0.conv1.1.weight"], source["layer3.0.bn1.weight"])
    assert torch.equal(state["layers.0.1.running_var"], source["bn1.running_var"])


def test_a_2d_patch_embedding_is_spread_over_the_tubelet(tmp_path: Path) -> None:
    """Its kernel has no middle and sees no padding, so the mean is exact."""
    backbone = ViT(embed_dim=32, depth=1, num_heads=2, tubelet=(2, 8, 8))
    state = backbone.state_dict()
    kernel = torch.randn(32, 3, 8, 8)
    state["patch_embed.proj.weight"] = kernel
    state |= {"cls_token": torch.zeros(1, 1, 32), "pos_embed": torch.zeros(1, 17, 32)}
    loaded = load_weights(backbone, saved({"model": state}, tmp_path), inflate=True)
    assert (loaded.inflated, loaded.unexpected) == (1, ["cls_token", "pos_embed"])
    images = torch.randn(1, 3, 16, 16)
    expected = nn.functional.conv2d(images, kernel, backbone.patch_embed.proj.bias, stride=8)
    found = backbone.patch_embed(images[:, :, None].expand(-1, -1, 4, -1, -1))
    torch.testing.assert_close(found, expected[:, :, None].expand_as(found), atol=1e-5, rtol=1e-5)


def test_without_inflate_a_2d_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = saved(models.ResNet(Bottleneck2D, [1, 1, 1, 1]).state_dict(), tmp_path)
    with pytest.raises(InputError, match=r"they are 2D: add backbone\.inflate=true"):
        load_weights(BottleneckR3D(blocks_per_stage=(1, 1, 1, 1)), path)


def test_a_3d_file_is_loaded_as_it_is_though_inflate_is_asked_for(tmp_path: Path) -> None:
    trained, fresh = r3d(1), r3d(2)
    assert load_weights(fresh, saved(trained.state_dict(), tmp_path), inflate=True).inflated == 0
    assert equal(trained, fresh)


@pytest.mark.parametrize(("depth", "blocks", "bottleneck"), [(18, (2, 2, 2, 2), False), (50, (3, 4, 6, 3), True)])
def test_tsm_starts_from_image_weights_of_its_depth(
    tmp_path: Path, depth: int, blocks: tuple[int, ...], bottleneck: bool
) -> None:
    """A still clip of one frame passes the shift's channels as zeros, so the tensors are compared, not the features."""
    torch.manual_seed(0)
    image_network = getattr(models, f"resnet{depth}")(weights=None)
    backbone = TSMResNet(blocks_per_stage=blocks, bottleneck=bottleneck)
    loaded = load_weights(backbone, saved(image_network.state_dict(), tmp_path))
    assert (loaded.matched, loaded.missing) == (loaded.total, [])
    assert sorted(loaded.unexpected) == ["fc.bias", "fc.weight"]
    ours, theirs = backbone.state_dict(), image_network.state_dict()
    assert torch.equal(ours["stem.0.weight"], theirs["conv1.weight"])
    assert torch.equal(ours["blocks.2.conv1.weight"], theirs[f"{backbone.places[2]}.conv1.weight"])
