"""S3D and S3D-G: torchvision's network without gates, and what a gate does."""

import pytest
import torch
from torch import nn
from torchvision.models import video

from ssl_video.backbones.s3d import S3D, FeatureGate
from ssl_video.utils.errors import InputError


def test_without_gating_it_is_torchvisions_tensor_by_tensor() -> None:
    with torch.device("meta"):
        ours, theirs = S3D(gating=False), video.s3d(weights=None).features
    assert {name.removeprefix("layers."): tensor.shape for name, tensor in ours.state_dict().items()} == {
        name: tensor.shape for name, tensor in theirs.state_dict().items()
    }
    assert sum(weight.numel() for weight in ours.parameters()) == 7_910_048
    assert ours.feature_dim == 1024


def test_without_gating_it_has_torchvisions_values() -> None:
    ours, theirs = S3D(gating=False).eval(), video.s3d(weights=None).features.eval()
    theirs.load_state_dict({name.removeprefix("layers."): tensor for name, tensor in ours.state_dict().items()})
    clips = torch.rand(1, 3, 8, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.feature_map(clips), theirs(clips))


def test_a_gate_follows_each_convolution_in_time() -> None:
    with torch.device("meta"):
        network = S3D(gating=True)
    in_time = [m for m in network.modules() if isinstance(m, nn.Conv3d) and m.kernel_size[0] > 1]
    gates = [m for m in network.modules() if isinstance(m, FeatureGate)]
    # The two of the stem, and two branches of each of nine blocks.
    channels = [64, 192, 128, 32, 192, 96, 208, 48, 224, 64, 256, 64, 288, 64, 320, 128, 320, 128, 384, 128]
    assert [m.out_channels for m in in_time] == channels
    assert [gate.linear.out_features for gate in gates] == channels
    added = sum(number * number + number for number in channels)
    assert sum(weight.numel() for weight in network.parameters()) == 7_910_048 + added == 8_675_744


def test_a_gate_scales_channels_by_the_clip_itself() -> None:
    gate = FeatureGate(2).double()
    weight, bias = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]).double(), torch.tensor([0.0, 1.0]).double()
    gate.load_state_dict({"linear.weight": weight, "linear.bias": bias})
    features = torch.rand(2, 2, 3, 4, 5, dtype=torch.float64)
    expected = features.clone()
    for clip in range(2):
        mean = [features[clip, channel].mean() for channel in range(2)]
        for channel in range(2):
            logit = weight[channel, 0] * mean[0] + weight[channel, 1] * mean[1] + bias[channel]
            expected[clip, channel] *= 1 / (1 + torch.exp(-logit))
    torch.testing.assert_close(gate(features), expected)


def test_small_form_trains_and_evaluates() -> None:
    network = S3D(width_multiplier=0.125, batch_norm_momentum=0.1)
    clips = torch.rand(2, 3, 8, 32, 32)
    network(clips).square().sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []
    gate = network.get_parameter("layers.3.2.linear.weight").grad
    assert gate is not None
    assert gate.any()
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm3d)} == {0.1}
    network.eval()
    assert network.feature_map(clips).shape == (2, 128, 1, 1, 1)
    torch.testing.assert_close(network(clips[:1]), network(clips)[:1])


def test_the_smallest_clip_and_a_width_of_nothing() -> None:
    with torch.device("meta"):
        network = S3D().eval()
        assert network.feature_map(torch.empty(1, 3, 5, 17, 17)).shape == (1, 1024, 1, 1, 1)
        with pytest.raises(InputError, match="num_frames=4 must be at least 5"):
            network(torch.empty(1, 3, 4, 32, 32))
    with pytest.raises(ValueError, match="width_multiplier=0 must be above 0"):
        S3D(width_multiplier=0)
