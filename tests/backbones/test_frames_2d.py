"""What a 2D network sees of a clip, and how its maps become features, on a network of one convolution."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_video.backbones.frames_2d import Encoding, Frames2D
from ssl_video.modules.clip_encoders import dynamic_image, stack_of_differences, sum_of_differences
from ssl_video.utils.errors import InputError


class OneConvolution(Frames2D):
    """A convolution of stride 2; remembers how many images a clip had."""

    feature_dim = 4

    def __init__(
        self, *, encoding: Encoding = "per_frame", num_frames: int | None = None, in_channels: int = 3
    ) -> None:
        super().__init__(encoding=encoding, num_frames=num_frames, in_channels=in_channels)
        self.convolution = nn.Conv2d(self.image_channels, 4, 3, stride=2)
        self.images_per_clip = 0

    def image_map(self, images: Tensor, *, images_per_clip: int) -> Tensor:
        self.images_per_clip = images_per_clip
        return functional.relu(self.convolution(images))


def test_per_frame_equals_the_network_on_each_frame() -> None:
    network, clips = OneConvolution(), torch.randn(2, 3, 5, 9, 11)
    frames = [functional.relu(network.convolution(clips[:, :, t])) for t in range(5)]
    torch.testing.assert_close(network.feature_map(clips), torch.stack(frames, dim=2))
    assert network.images_per_clip == 5
    by_frame = torch.stack([frame.mean(dim=(2, 3)) for frame in frames], dim=1)
    assert by_frame.shape == (2, 5, 4)
    torch.testing.assert_close(network.frame_features(clips), by_frame)
    torch.testing.assert_close(network(clips), by_frame.mean(dim=1))


def test_per_frame_takes_clips_of_any_length_alone_or_together() -> None:
    network, clips = OneConvolution(), torch.randn(3, 3, 6, 9, 9)
    torch.testing.assert_close(network(clips[1:2]), network(clips)[1:2])
    singles = torch.stack([network(clips[:, :, t : t + 1]) for t in range(6)])
    torch.testing.assert_close(singles.mean(dim=0), network(clips))
    assert (network.min_frames, network.image_channels) == (1, 3)


@pytest.mark.parametrize(
    ("encoding", "encode", "channels"),
    [
        ("sum_of_differences", sum_of_differences, 3),
        ("dynamic_image", dynamic_image, 3),
        ("stack_of_differences", stack_of_differences, 15),
    ],
)
def test_an_encoded_clip_is_one_image(encoding: Encoding, encode: Callable[[Tensor], Tensor], channels: int) -> None:
    network, clips = OneConvolution(encoding=encoding, num_frames=6), torch.randn(2, 3, 6, 9, 11)
    assert (network.image_channels, network.in_channels, network.min_frames) == (channels, 3, 6)
    image_map = functional.relu(network.convolution(encode(clips)))
    torch.testing.assert_close(network.feature_map(clips), image_map.unsqueeze(2))
    torch.testing.assert_close(network.frame_features(clips), image_map.mean(dim=(2, 3)).unsqueeze(1))
    torch.testing.assert_close(network(clips), image_map.mean(dim=(2, 3)))
    assert network.images_per_clip == 1
    assert not torch.allclose(network(clips), network(clips.flip(2)), atol=1e-4)  # it sees the order


def test_gray_frames() -> None:
    network = OneConvolution(encoding="stack_of_differences", num_frames=6, in_channels=1)
    assert network.image_channels == 5
    assert network(torch.randn(2, 1, 6, 9, 9)).shape == (2, 4)


@pytest.mark.parametrize("frames", [5, 7])
def test_an_encoding_takes_clips_of_its_length_only(frames: int) -> None:
    network = OneConvolution(encoding="dynamic_image", num_frames=6)
    with pytest.raises(InputError, match=f"num_frames={frames} must be the 6 that OneConvolution encodes") as refusal:
        network(torch.zeros(1, 3, frames, 9, 9))
    assert "sampler.num_frames=6" in str(refusal.value)
    with pytest.raises(InputError, match="5 dimensions"):
        network(torch.zeros(1, 3, 6, 9))


@pytest.mark.parametrize(
    ("encoding", "num_frames", "words"),
    [
        ("per_frame", 6, "num_frames=6 must be null"),
        ("dynamic_image", None, "num_frames=None must be at least 2"),
        ("stack_of_differences", 1, "num_frames=1 must be at least 2"),
        ("optical_flow", None, "encoding='optical_flow' must be one of per_frame, sum_of_differences"),
    ],
)
def test_encodings_that_do_not_fit(encoding: Encoding, num_frames: int | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        OneConvolution(encoding=encoding, num_frames=num_frames)
