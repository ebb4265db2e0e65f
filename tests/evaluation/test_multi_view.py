"""Our way from a file to the scores of a video against a loop over torchvision's own transform and network."""

from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import video as models
from torchvision.transforms import functional

from ssl_video.backbones.torchvision_video import TorchvisionVideo
from ssl_video.backbones.weights import load_weights
from ssl_video.cli.parts import PROVIDED, EvaluateSettings
from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.dataset import VideoDataset
from ssl_video.data.decoding.decoder import DirectDecoder
from ssl_video.data.index import index_annotated
from ssl_video.data.order import SampleKey
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.data.transforms.resize_center_crop import ResizeCenterCrop
from ssl_video.evaluation.clips import NUM_CROPS
from ssl_video.metrics.averaging import average_views, classify_views
from ssl_video.utils.config import build, compose_checked
from support.videos import H264, write_video

pytestmark = pytest.mark.slow


WEIGHTS = models.R3D_18_Weights.KINETICS400_V1
FRAMES, STRIDE = 8, 2


# --- the presets ------------------------------------------------------------------------------------------------------


def preset(name: str) -> ResizeCenterCrop:
    words = ["checkpoint=random", f"input_transform={name}"]
    config = compose_checked("evaluate", words, provided=PROVIDED, settings=EvaluateSettings)
    transform: ResizeCenterCrop = build(config.input_transform)
    return transform


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("torchvision_r3d", WEIGHTS),
        ("torchvision_r3d", models.MC3_18_Weights.KINETICS400_V1),
        ("torchvision_r3d", models.R2Plus1D_18_Weights.KINETICS400_V1),
        ("torchvision_s3d", models.S3D_Weights.KINETICS400_V1),
        ("torchvision_mvit", models.MViT_V1_B_Weights.KINETICS400_V1),
        ("torchvision_mvit", models.MViT_V2_S_Weights.KINETICS400_V1),
        ("torchvision_swin3d", models.Swin3D_T_Weights.KINETICS400_V1),
        ("torchvision_swin3d", models.Swin3D_B_Weights.KINETICS400_V1),
    ],
)
@pytest.mark.parametrize("size", [(240, 320), (360, 202)])
def test_each_preset_is_the_transform_of_the_weights(name: str, weights: Any, size: tuple[int, int]) -> None:
    frames = torch.randint(256, (1, 2, *size, 3), dtype=torch.uint8)
    theirs = weights.transforms()(frames.permute(0, 1, 4, 2, 3))
    torch.testing.assert_close(preset(name)(frames), theirs, atol=1e-6, rtol=0)


# --- a video's features and scores ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """torchvision's R3D-18 with random weights, and the file that a user would have."""
    torch.manual_seed(0)
    theirs = models.r3d_18(weights=None).eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm3d):  # not the mean 0 and variance 1 of a new network
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    theirs.fc.weight.data.normal_(0, 0.5)  # sure of itself, so that it matters where views are averaged
    path = tmp_path_factory.mktemp("weights") / "r3d_18-b3b3357e.pth"
    torch.save(theirs.state_dict(), path)
    return theirs, path


def our_views(path: Path, *, num_clips: int, transform: ResizeCenterCrop, num_frames: int = FRAMES) -> Tensor:
    """Clips `[V, 3, T, h, w]` of a file by our reader, sampler and transform, as an evaluation reads them."""
    manifest = index_annotated(path.parent, [AnnotatedVideo(path.name, {"label": "any"})], progress=False)
    videos = VideoDataset(
        manifest,
        rows=np.array([0]),
        labels=np.array([0]),
        videos=np.array([0]),
        sampler=UniformClips(num_views=num_clips, num_frames=num_frames, frame_stride=STRIDE),
        transform=transform,
        decoder=DirectDecoder(partial(DecordReader, num_threads=1)),
        seed=0,
        unreadable="report",
    )
    clips = videos[SampleKey(epoch=0, position=0, row=0)].clips
    assert clips is not None
    return clips


@torch.inference_mode()
def our_features(path: Path, weights: Path, *, num_clips: int, transform: ResizeCenterCrop) -> Tensor:
    """`[1, V, D]`."""
    backbone = TorchvisionVideo(name="r3d_18").eval()
    loaded = load_weights(backbone, weights)
    assert (loaded.matched, loaded.unexpected) == (loaded.total, ["fc.weight", "fc.bias"])
    return backbone(our_views(path, num_clips=num_clips, transform=transform)).unsqueeze(0)


def whole_clips(path: Path, num_clips: int, num_frames: int = FRAMES) -> list[Tensor]:
    """Whole frames `[T, 3, H, W]` of each clip, all decoded from the first on; the starts spread by hand."""
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
    span = (num_frames - 1) * STRIDE + 1
    last = len(frames) - span
    starts = [int(last * number / (num_clips - 1) + 1e-9) for number in range(num_clips)]
    assert starts[0] == 0
    assert starts[-1] == last > 0
    return [frames[start : start + span : STRIDE] for start in starts]


@torch.inference_mode()
def their_scores(network: nn.Module, clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Features `[V, D]` and logits `[V, 400]`, one clip `[3, T, h, w]` after the other."""
    features = []
    handle = network.fc.register_forward_pre_hook(lambda layer, given: features.append(given[0]))
    logits = torch.cat([network(clip.unsqueeze(0)) for clip in clips])
    handle.remove()
    return torch.cat(features), logits


def check_against_torchvision(path: Path, network: tuple[nn.Module, Path], *, num_clips: int) -> None:
    theirs, weights = network
    clips = [WEIGHTS.transforms()(clip) for clip in whole_clips(path, num_clips)]
    features, logits = their_scores(theirs, clips)
    ours = our_features(path, weights, num_clips=num_clips, transform=preset("torchvision_r3d"))
    assert features.std() > 0.05  # there is something to tell apart
    assert (features[0] - features[-1]).abs().max() > 1e-3
    torch.testing.assert_close(ours[0], features, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        by_clip = theirs.fc(ours)
        torch.testing.assert_close(by_clip[0], logits, atol=1e-5, rtol=1e-5)
        expected = torch.stack([clip.softmax(dim=0) for clip in logits]).mean(dim=0)
        torch.testing.assert_close(average_views(by_clip, "probabilities")[0], expected, atol=1e-5, rtol=0)
        expected = (sum(logits) / num_clips).softmax(dim=0)
        torch.testing.assert_close(average_views(by_clip, "logits")[0], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(classify_views(ours, theirs.fc, "features")[0], expected, atol=1e-5, rtol=0)
    probabilities, by_logits = (average_views(by_clip, how).log() for how in ("probabilities", "logits"))
    assert (probabilities - by_logits).abs().max() > 0.01


@pytest.fixture(scope="module")
def moving_noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A textured picture that moves, 40 frames of 150 x 200 pixels."""
    rng = np.random.default_rng(0)
    picture = rng.integers(256, size=(38, 60, 3)).repeat(5, 0).repeat(5, 1).astype(np.uint8)
    frames = np.stack([picture[number : number + 150, 2 * number : 2 * number + 200] for number in range(40)])
    return write_video(tmp_path_factory.mktemp("videos") / "moving.mp4", frames=frames, encoding=H264)


def test_several_clips_are_those_of_a_loop_over_torchvision(
    moving_noise: Path, network: tuple[nn.Module, Path]
) -> None:
    check_against_torchvision(moving_noise, network, num_clips=2)


def test_a_resize_with_antialias_would_be_seen(moving_noise: Path, network: tuple[nn.Module, Path]) -> None:
    """The control: features move by a hundred times the tolerance."""
    ours, other = preset("torchvision_r3d"), preset("torchvision_r3d")
    other.antialias = True
    features, others = (
        our_features(moving_noise, network[1], num_clips=1, transform=transform) for transform in (ours, other)
    )
    assert (features - others).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.shared_data
def test_several_clips_of_real_videos_are_those_of_a_loop_over_torchvision(
    shared_data: Path, network: tuple[nn.Module, Path]
) -> None:
    files = sorted((shared_data / "wagon" / "train_in_out").glob("*.mp4"))[:2]
    files += sorted((shared_data / "interactions" / "labelled").rglob("*.avi"))[:2]
    assert len(files) == 4
    for path in files:
        check_against_torchvision(path, network, num_clips=3)


@pytest.mark.parametrize(("num_clips", "num_frames"), [(2, 8), (25, 1)])
def test_ten_crops_of_each_clip_are_torchvisions(moving_noise: Path, num_clips: int, num_frames: int) -> None:
    """Clips by crops as a network sees them; 25 single frames by 10 crops is the test of two-stream networks."""
    mean, std = [0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]
    expected = []
    for clip in whole_clips(moving_noise, num_clips, num_frames):
        resized = functional.resize(clip, [128, 171], antialias=False)
        for square in functional.ten_crop(resized, [112, 112]):
            pixels = functional.normalize(functional.convert_image_dtype(square, torch.float32), mean, std)
            expected.append(pixels.transpose(0, 1))
    transform = preset("torchvision_r3d").with_crops("ten")
    ours = our_views(moving_noise, num_clips=num_clips, num_frames=num_frames, transform=transform)
    assert ours.shape == (num_clips * NUM_CROPS["ten"], 3, num_frames, 112, 112)
    torch.testing.assert_close(ours, torch.stack(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("num_clips", "crops"), [(10, "three"), (5, "three"), (10, "centre"), (25, "ten")])
def test_views_of_the_published_forms(moving_noise: Path, num_clips: int, crops: Any) -> None:
    """10 x 3, 5 x 3, 10 x 1 and 25 x 10: as many views as the papers test with, clip by clip."""
    transform = ResizeCenterCrop(resize=32, crop=32)
    one = our_views(moving_noise, num_clips=num_clips, transform=transform)
    views = our_views(moving_noise, num_clips=num_clips, transform=transform.with_crops(crops))
    assert views.shape[0] == num_clips * NUM_CROPS[crops]
    middle = {"centre": 0, "three": 1, "ten": 4}[crops]
    torch.testing.assert_close(views[middle :: NUM_CROPS[crops]], one)
