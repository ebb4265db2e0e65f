"""MViT v2 and Video Swin: torchvision's tensors and values, and clips of other sizes."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import video

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.torchvision_transformers import MViT, Swin3D


def small_mvit() -> MViT:
    return MViT(blocks_per_stage=(1, 1, 1), embed_dim=24, key_stride=4, num_frames=8, size=32, stochastic_depth=0.0)


def small_swin() -> Swin3D:
    return Swin3D(blocks_per_stage=(1, 2), embed_dim=12, num_heads=(1, 2), window=(2, 3, 3), stochastic_depth=0.0)


def shapes(module: nn.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def tensors(network: nn.Module) -> dict[str, Tensor]:
    return {name.removeprefix("network."): tensor for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("ours", "theirs", "published"),
    [(MViT, video.mvit_v2_s, 34_537_744), (Swin3D, video.swin3d_t, 28_158_070)],
)
def test_default_sizes_are_torchvisions_tensor_by_tensor(
    ours: type[Backbone], theirs: type[nn.Module], published: int
) -> None:
    with torch.device("meta"):
        network, whole = ours(), theirs(weights=None)
    head = {name for name in shapes(whole) if name.startswith("head.")}
    assert len(head) == 2
    assert shapes(network, "network.") == {name: shape for name, shape in shapes(whole).items() if name not in head}
    # torchvision's documented count, with a classifier of 400 classes
    assert sum(weight.numel() for weight in network.parameters()) == published - (768 + 1) * 400
    assert network.feature_dim == 768


@pytest.mark.parametrize("network", [MViT, Swin3D])
def test_feature_map_of_a_paper_clip(network: type[Backbone]) -> None:
    with torch.device("meta"):
        assert network()(torch.empty(1, 3, 16, 224, 224)).shape == (1, 768)
        assert network().feature_map(torch.empty(1, 3, 16, 224, 224)).shape == (1, 768, 8, 7, 7)


def test_swin_has_torchvisions_values() -> None:
    network = small_swin().eval()
    clips = torch.rand(2, 3, 5, 20, 26)
    with torch.no_grad():
        torch.testing.assert_close(network(clips), network.network(clips))


def test_mvit_has_torchvisions_values_up_to_the_choice_of_tokens() -> None:
    network = small_mvit().eval()
    seen: list[Tensor] = []
    network.network.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    clips = torch.rand(2, 3, 8, 32, 32)
    with torch.no_grad():
        class_token = network.network(clips)  # torchvision's own forward
        features = network(clips)
    theirs, ours = seen
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(class_token, theirs[:, 0])
    torch.testing.assert_close(features, theirs[:, 1:].mean(dim=1))


def test_the_map_keeps_tokens_at_their_place() -> None:
    network = small_mvit().eval()
    seen: list[Tensor] = []
    network.network.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        features = network.feature_map(torch.rand(1, 3, 8, 32, 48))
    assert features.shape == (1, 96, 4, 2, 3)
    torch.testing.assert_close(features[0, :, 1, 1, 2], seen[0][0, 1 + (1 * 2 + 1) * 3 + 2])


@pytest.mark.parametrize("make", [small_mvit, small_swin])
@pytest.mark.parametrize("clip", [(8, 32, 32), (4, 48, 40), (16, 32, 64), (1, 1, 1)])
def test_clips_of_other_sizes(make: type[Backbone], clip: tuple[int, int, int]) -> None:
    network = make().eval()
    clips = torch.rand(2, 3, *clip)
    with torch.no_grad():
        assert network(clips).shape == (2, network.feature_dim)
        torch.testing.assert_close(network(clips[:1]), network(clips)[:1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [small_mvit, small_swin])
def test_gradient_reaches_every_parameter(make: type[Backbone]) -> None:
    torch.manual_seed(0)
    network = make()
    mixed = torch.randn(network.feature_dim)  # the sum of normed channels is constant
    (network(torch.rand(2, 3, 8, 32, 32)) * mixed).sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_sizes_that_are_no_network() -> None:
    with pytest.raises(ValueError, match="2 in all"):
        MViT(blocks_per_stage=(1,))
    with pytest.raises(ValueError, match="multiple of num_heads=5"):
        MViT(num_heads=5)
    with pytest.raises(ValueError, match="size=16 must be at least 2 and 32"):
        MViT(size=16)
    with pytest.raises(ValueError, match="equally many"):
        Swin3D(num_heads=(3, 6))
    with pytest.raises(ValueError, match="must divide"):
        Swin3D(embed_dim=90, num_heads=(4, 6, 12, 24))
    with pytest.raises(ValueError, match="three numbers each"):
        Swin3D(window=(7, 7))
