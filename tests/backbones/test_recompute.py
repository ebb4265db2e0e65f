"""Recomputing activations changes memory and time, and nothing else."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.recompute import recompute_activations, recomputed_parts
from ssl_video.cli.parts import build_backbone
from support.methods import compose_train

QUICK = ("r3d_tiny", "tsm_resnet_small", "vit_tiny")
OTHERS = (
    *("c3d_small", "caffenet_small", "mvit_small", "r2plus1d_small", "s3d_g_small", "slow_r50_small"),
    *("swin3d_small", "videomae_small", "vjepa2_small"),
)


def noise() -> Tensor:
    return torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))


def built(name: str) -> Backbone:
    overrides = ["backbone.size=32"] if name == "videomae_small" else []
    return build_backbone(compose_train(f"backbone={name}", *overrides)).train()


def saved_bytes(backbone: Backbone, clips: Tensor) -> int:
    """What a forward pass keeps for the backward pass, each storage once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = backbone(clips)
    own = {parameter.untyped_storage().data_ptr() for parameter in backbone.parameters()}
    del out
    return sum(size for place, size in kept.items() if place not in own)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_gradients_and_buffers_are_those_of_the_plain_network(name: str) -> None:
    plain = built(name)
    backbone = copy.deepcopy(plain)
    names = list(backbone.state_dict())
    assert len(recompute_activations(backbone)) > 1
    assert list(backbone.state_dict()) == names
    clips, ways = noise(), (plain, backbone)
    for one in ways:
        torch.manual_seed(2)  # dropout and stochastic depth
        one(clips).square().sum().backward()
    for ours, theirs in zip(backbone.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)
    for (buffer_name, ours), theirs in zip(backbone.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs), buffer_name
    assert saved_bytes(backbone, clips) < 0.7 * saved_bytes(plain, clips)


def test_control_torchs_own_moves_running_statistics_twice() -> None:
    plain = built("r3d_tiny")
    backbone = copy.deepcopy(plain)
    for part in recomputed_parts(backbone):
        forward = part.forward
        part.forward = lambda *inputs, forward=forward: torch.utils.checkpoint.checkpoint(  # type: ignore[method-assign]
            forward, *inputs, use_reentrant=False
        )
    for one in (plain, backbone):
        one(noise()).sum().backward()
    assert any(not torch.equal(a, b) for a, b in zip(plain.buffers(), backbone.buffers(), strict=True))


def test_nothing_is_recomputed_without_gradient_and_statistics_serve_in_evaluation() -> None:
    plain = built("r3d_tiny")
    backbone = copy.deepcopy(plain)
    recompute_activations(backbone)
    clips = noise()
    with torch.no_grad():
        assert torch.equal(backbone(clips), plain(clips))
    plain.eval(), backbone.eval()
    for one in (plain, backbone):
        one(clips).sum().backward()
    assert all(
        torch.equal(a.grad, b.grad)  # type: ignore[arg-type]
        for a, b in zip(plain.parameters(), backbone.parameters(), strict=True)
    )


def test_parts_are_blocks_not_layers() -> None:
    backbone = built("r3d_tiny")
    assert recomputed_parts(backbone) == [backbone.stem, *backbone.stages]  # type: ignore[attr-defined]
    assert not any(isinstance(part, nn.Conv3d | nn.BatchNorm3d) for part in recomputed_parts(backbone))
