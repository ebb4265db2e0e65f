"""TSM-ResNet: the shift against a loop, the network against torchvision's with the shift put into it."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet34, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from ssl_video.backbones.tsm_resnet import ShiftOn, TSMResNet, temporal_shift


def shift_by_loop(clip: Tensor, shift_div: int) -> Tensor:
    """One clip [T,C,h,w], frame by frame and channel by channel."""
    frames, channels = clip.shape[:2]
    fold = channels // shift_div
    shifted = torch.zeros_like(clip)
    for t in range(frames):
        for channel in range(channels):
            source = t + 1 if channel < fold else t - 1 if channel < 2 * fold else t
            if 0 <= source < frames:
                shifted[t, channel] = clip[source, channel]
    return shifted


@pytest.mark.parametrize("frames", [8, 4, 2, 1])
@pytest.mark.parametrize(("channels", "shift_div"), [(16, 8), (21, 8), (12, 3), (8, 2)])
def test_shift_equals_the_loop(frames: int, channels: int, shift_div: int) -> None:
    clips = torch.randn(3, frames, channels, 2, 3)
    expected = torch.stack([shift_by_loop(clip, shift_div) for clip in clips])
    shifted = temporal_shift(clips.flatten(0, 1), images_per_clip=frames, shift_div=shift_div)
    torch.testing.assert_close(shifted.unflatten(0, (3, frames)), expected, rtol=0, atol=0)
    assert (shifted.unflatten(0, (3, frames)) != clips).any(dim=(0, 1, 3, 4)).sum() == 2 * (channels // shift_div)


def test_shift_keeps_the_memory_format() -> None:
    maps = torch.randn(8, 16, 3, 3).contiguous(memory_format=torch.channels_last)
    shifted = temporal_shift(maps, images_per_clip=4, shift_div=8)
    assert shifted.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(shifted, temporal_shift(maps.contiguous(), images_per_clip=4, shift_div=8))


class Shift(nn.Module):
    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([shift_by_loop(clip, 8) for clip in maps.split(self.frames)])


def with_shift(network: ResNet, *, frames: int, shift_on: ShiftOn) -> nn.Module:
    """Torchvision's network as the original code changes it: a module before each block, or before its conv1."""
    network.fc = nn.Identity()
    for name in ("layer1", "layer2", "layer3", "layer4"):
        blocks = getattr(network, name)
        for place, block in enumerate(blocks):
            assert isinstance(block, BasicBlock | Bottleneck)
            if shift_on == "block_input":
                blocks[place] = nn.Sequential(Shift(frames), block)
            else:
                block.conv1 = nn.Sequential(Shift(frames), block.conv1)
    return network


@pytest.mark.parametrize("shift_on", ["block_input", "residual"])
@pytest.mark.parametrize("depth", [18, 50])
def test_values_are_those_of_torchvision_with_the_shift(shift_on: ShiftOn, depth: int) -> None:
    ours = TSMResNet(
        blocks_per_stage=(2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3), bottleneck=depth == 50, shift_on=shift_on
    )
    theirs = (resnet18 if depth == 18 else resnet50)()
    for norm in (layer for layer in theirs.modules() if isinstance(layer, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        nn.init.uniform_(norm.weight, 0.5, 0.8)
    weights = [tensor for name, tensor in theirs.state_dict().items() if not name.startswith("fc")]
    ours.load_state_dict(dict(zip(ours.state_dict(), weights, strict=True)))
    clips = torch.randn(2, 3, 3, 33, 33)
    with torch.no_grad():
        expected = with_shift(theirs, frames=3, shift_on=shift_on).eval()(clips.transpose(1, 2).flatten(0, 1))
        expected = expected.unflatten(0, (2, 3))
        torch.testing.assert_close(ours.eval().frame_features(clips), expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours(clips), expected.mean(dim=1), rtol=1e-3, atol=1e-4)
    assert expected.std(dim=1).mean() > 1e-3


@pytest.mark.parametrize(
    ("theirs", "blocks", "bottleneck"),
    [(resnet18, (2, 2, 2, 2), False), (resnet34, (3, 4, 6, 3), False), (resnet50, (3, 4, 6, 3), True)],
)
def test_number_of_parameters(theirs: type[ResNet], blocks: tuple[int, ...], bottleneck: bool) -> None:
    with torch.device("meta"):
        ours, published = TSMResNet(blocks_per_stage=blocks, bottleneck=bottleneck), theirs()  # type: ignore[call-arg]
        features = ours.feature_map(torch.empty(1, 3, 8, 224, 224))
    published.fc = nn.Identity()
    assert [p.shape for p in ours.parameters()] == [p.shape for p in published.parameters()]
    assert features.shape == (1, ours.feature_dim, 8, 7, 7)


def small(*, shift_on: ShiftOn = "block_input") -> TSMResNet:
    return TSMResNet(blocks_per_stage=(1, 1, 1), widths=(16, 24, 32), stem_kernel=3, stem_pool=False, shift_on=shift_on)


@pytest.mark.parametrize("shift_on", ["block_input", "residual"])
def test_a_block_without_residual_gives_its_shortcut(shift_on: ShiftOn) -> None:
    network = TSMResNet(blocks_per_stage=(1,), widths=(16,), stem_pool=False, shift_on=shift_on).eval()
    nn.init.zeros_(network.blocks[0].bn2.weight)  # type: ignore[arg-type, union-attr]
    clips = torch.randn(2, 3, 4, 16, 16)
    stem = network.stem(clips.transpose(1, 2).flatten(0, 1))
    shifted = torch.cat([shift_by_loop(clip, 8) for clip in stem.split(4)])
    expected = shifted if shift_on == "block_input" else stem
    torch.testing.assert_close(network.image_map(clips.transpose(1, 2).flatten(0, 1), images_per_clip=4), expected)
    assert not torch.equal(shifted, stem)


def test_clips_of_several_lengths_in_turn() -> None:
    network, clips = small().eval(), torch.randn(2, 3, 8, 32, 32)
    fast = network(clips)
    slow = network(clips[:, :, ::2])
    assert fast.shape == slow.shape == (2, 32)
    torch.testing.assert_close(network(clips), fast)
    torch.testing.assert_close(network(clips[1:, :, ::2]), slow[1:])  # clips of a batch don't mix
    assert network.feature_map(clips).shape == (2, 32, 8, 4, 4)
    torch.testing.assert_close(network.frame_features(clips).mean(dim=1), fast)


def test_it_sees_the_order_of_frames() -> None:
    network, clips = small().eval(), torch.randn(2, 3, 8, 32, 32)
    assert not torch.allclose(network(clips), network(clips.flip(2)), atol=1e-4)


def test_gradient_reaches_every_parameter_and_train_differs_from_eval() -> None:
    network, clips = small(), torch.randn(2, 3, 4, 32, 32)
    trained = network(clips)
    trained.square().sum().backward()
    missing = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert missing == []
    assert not torch.allclose(network.eval()(clips), trained, atol=1e-3)


def test_initial_weights_are_torchvisions() -> None:
    for layer in TSMResNet(blocks_per_stage=(1, 1), widths=(64, 128)).modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.06)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"blocks_per_stage": (1, 1), "widths": (16,)}, "equally many entries"),
        ({"blocks_per_stage": (), "widths": ()}, "equally many entries"),
        ({"blocks_per_stage": (0,), "widths": (16,)}, "each at least 1"),
        ({"blocks_per_stage": (1,), "widths": (7,)}, "none would move"),
        ({"shift_div": 1}, "move both ways"),
        ({"shift_on": "shortcut"}, "shift_on='shortcut' must be one of block_input, residual"),
        ({"stem_kernel": 4}, "stem_kernel=4 must be odd"),
    ],
)
def test_sizes_that_are_no_network(sizes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TSMResNet(**sizes)  # type: ignore[arg-type]
