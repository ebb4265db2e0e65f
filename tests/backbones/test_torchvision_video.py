"""torchvision's 3D networks without classifier: sizes, shapes, values and the smallest clips."""

import pytest
import torch
from torch import nn
from torchvision.models import video

from ssl_video.backbones.torchvision_video import Name, TorchvisionVideo
from ssl_video.utils.errors import InputError

NAMES: list[Name] = ["r3d_18", "r2plus1d_18", "mc3_18", "s3d"]


@pytest.mark.parametrize(
    ("name", "published", "feature_dim"),
    [  # torchvision's documented counts, with a classifier of 400 classes
        ("r3d_18", 33_371_472, 512),
        ("r2plus1d_18", 31_505_325, 512),
        ("mc3_18", 11_695_440, 512),
        ("s3d", 8_320_048, 1024),
    ],
)
def test_number_of_parameters(name: Name, published: int, feature_dim: int) -> None:
    with torch.device("meta"):
        network = TorchvisionVideo(name=name)
    assert network.feature_dim == feature_dim
    assert sum(weight.numel() for weight in network.parameters()) == published - (feature_dim + 1) * 400


def test_r3d_18_has_the_parameters_of_its_formula() -> None:
    expected = 3 * 3 * 7 * 7 * 64 + 2 * 64 + 4 * (27 * 64 * 64 + 2 * 64)
    for before, after in [(64, 128), (128, 256), (256, 512)]:
        expected += 27 * before * after + 3 * 27 * after * after + before * after + 5 * 2 * after
    with torch.device("meta"):
        network = TorchvisionVideo(name="r3d_18")
    assert sum(weight.numel() for weight in network.parameters()) == expected == 33_166_272


@pytest.mark.parametrize(
    ("name", "frames", "size", "shape"),
    [
        ("r3d_18", 16, 112, (512, 2, 7, 7)),
        ("r2plus1d_18", 16, 112, (512, 2, 7, 7)),
        ("mc3_18", 16, 112, (512, 16, 7, 7)),
        ("s3d", 16, 112, (1024, 2, 3, 3)),
        ("s3d", 64, 224, (1024, 8, 7, 7)),
        ("r3d_18", 8, 48, (512, 1, 3, 3)),
        ("r2plus1d_18", 8, 48, (512, 1, 3, 3)),
        ("mc3_18", 8, 48, (512, 8, 3, 3)),
        ("s3d", 8, 48, (1024, 1, 1, 1)),
    ],
)
def test_shape_of_the_feature_map(name: Name, frames: int, size: int, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network, clips = TorchvisionVideo(name=name), torch.empty(2, 3, frames, size, size)
        assert network.feature_map(clips).shape == (2, *shape)
        assert network(clips).shape == (2, network.feature_dim)


@pytest.mark.parametrize("name", NAMES)
def test_small_clips_train_and_eval_and_gradient(name: Name) -> None:
    torch.manual_seed(0)
    network = TorchvisionVideo(name=name)
    clips = torch.rand(2, 3, 8, 32, 32)
    network(clips).square().sum().backward()
    first = next(module for module in network.modules() if isinstance(module, nn.Conv3d)).weight
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    assert all(weight.grad is not None for weight in network.parameters())  # nothing of the classifier is left
    network.eval()
    with torch.no_grad():
        features = network(clips)
        torch.testing.assert_close(features, network.feature_map(clips).mean(dim=(2, 3, 4)))
        torch.testing.assert_close(features[:1], network(clips[:1]))


def test_features_are_what_torchvision_feeds_its_classifier() -> None:
    torch.manual_seed(0)
    network = TorchvisionVideo(name="mc3_18").eval()
    whole = video.mc3_18(weights=None).eval()
    whole.fc = nn.Identity()
    ours = network.state_dict()
    whole.load_state_dict(dict(zip(whole.state_dict(), ours.values(), strict=True)))
    clips = torch.rand(1, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(clips), whole(clips))


@pytest.mark.parametrize(("name", "frames", "size"), [("s3d", 5, 17), ("r3d_18", 1, 1), ("mc3_18", 1, 1)])
def test_the_smallest_clip(name: Name, frames: int, size: int) -> None:
    with torch.device("meta"):
        network = TorchvisionVideo(name=name).eval()
        assert (network.min_frames, network.min_size) == (frames, size)
        clips = torch.empty(1, 3, frames, size, size)
        assert network.feature_map(clips).shape == (1, network.feature_dim, 1, 1, 1)


@pytest.mark.parametrize(
    ("frames", "size", "words"), [(4, 32, "num_frames=4 must be at least 5"), (8, 16, "16x16 pixels must be at least")]
)
def test_s3d_refuses_a_clip_of_which_nothing_is_left(frames: int, size: int, words: str) -> None:
    with torch.device("meta"):
        network = TorchvisionVideo(name="s3d")
        clips = torch.empty(1, 3, frames, size, size)
        with pytest.raises(RuntimeError):  # the rule isn't stricter than torch's
            network.layers(clips)
        with pytest.raises(InputError, match=words):
            network(clips)


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"name='r3d_50' must be one of r3d_18, r2plus1d_18, mc3_18, s3d"):
        TorchvisionVideo(name="r3d_50")  # type: ignore[arg-type]
