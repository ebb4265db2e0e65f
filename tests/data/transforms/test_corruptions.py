import colorsys
import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ssl_video.data.transforms.corruptions import CORRUPTIONS, SEVERITIES, corrupt

OF_TIME = ("frame_drop", "frame_rate")
OF_PIXELS = ("gaussian_noise", "gaussian_blur", "jpeg_compression", "brightness")


def moving_clips(*, num_frames: int = 16, height: int = 48, width: int = 64) -> Tensor:
    """Two clips of coloured waves with edges that run to the side, `[2, T, H, W, 3]` uint8."""
    y, x = np.mgrid[:height, :width].astype(float)
    frames = [
        np.stack([np.sin((x + 1.5 * t + 7 * c) / (5 + c)) * np.cos((y + 3 * c) / 6) for c in range(3)], axis=-1)
        for t in range(2 * num_frames)
    ]
    waves = np.array(frames)
    pixels = (90 + 60 * waves + 20 * np.sign(waves)).astype(np.uint8)
    return torch.from_numpy(pixels).unflatten(0, (2, num_frames))


def psnr(clips: Tensor, spoilt: Tensor) -> float:
    error = (clips.double() - spoilt.double()).square().mean()
    return float(10 * torch.log10(255**2 / error))


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(48, 64), (37, 49), (160, 120)])
def test_every_severity_is_worse_than_the_one_before(kind: str, shape: tuple[int, int]) -> None:
    clips = moving_clips(height=shape[0], width=shape[1])
    quality = []
    for severity in SEVERITIES:
        torch.manual_seed(3)
        spoilt = corrupt(clips, kind=kind, severity=severity)
        assert (spoilt.shape, spoilt.dtype, spoilt.is_contiguous()) == (clips.shape, torch.uint8, True)
        quality.append(psnr(clips, spoilt))
    assert all(better > worse for better, worse in pairwise(quality)), quality
    assert quality[0] < 50


@pytest.mark.parametrize("kind", OF_TIME)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_what_happens_to_time_leaves_a_static_clip_and_every_frame_as_they_are(kind: str, severity: int) -> None:
    clips = moving_clips()
    static = clips[:, :1].expand(clips.shape)
    assert torch.equal(corrupt(static, kind=kind, severity=severity), static)
    spoilt = corrupt(clips, kind=kind, severity=severity)
    places = shown_frames(clips, spoilt)
    assert all(place <= time for row in places for time, place in enumerate(row))
    assert all(row == sorted(row) and row[0] == 0 for row in places)


def shown_frames(clips: Tensor, spoilt: Tensor) -> list[list[int]]:
    """Which frame of its clip is shown at each time."""
    return [
        [next(place for place, frame in enumerate(clip) if torch.equal(frame, shown)) for shown in own]
        for clip, own in zip(clips, spoilt, strict=True)
    ]


def test_frames_are_held_and_dropped_as_the_table_says() -> None:
    clips = moving_clips()
    held = shown_frames(clips, corrupt(clips, kind="frame_rate", severity=2))
    assert held == [[0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9, 12, 12, 12, 15]] * 2
    for severity in SEVERITIES:
        dropped = shown_frames(clips, corrupt(clips, kind="frame_drop", severity=severity))
        lost = [{time for time, place in enumerate(row) if place != time} for row in dropped]
        assert [len(own) for own in lost] == [2 * severity] * 2
        # The frame before stands in, itself if it is there.
        assert all(row[time] == row[time - 1] for row, own in zip(dropped, lost, strict=True) for time in own)
    assert lost[0] != lost[1]  # each clip has a draw of its own


@pytest.mark.parametrize("kind", OF_TIME)
@pytest.mark.parametrize("num_frames", [1, 2])
def test_short_clips_are_served(kind: str, num_frames: int) -> None:
    clips = moving_clips()[:, :num_frames]
    expected = clips[:, :1].expand(clips.shape)
    assert torch.equal(corrupt(clips, kind=kind, severity=5), expected)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_seed_gives_the_same_and_what_is_given_stays(kind: str) -> None:
    clips = moving_clips()
    before = clips.clone()
    spoilt = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        spoilt.append(corrupt(clips, kind=kind, severity=3))
    assert torch.equal(spoilt[0], spoilt[1])
    assert torch.equal(spoilt[0], spoilt[2]) is (kind not in ("gaussian_noise", "frame_drop"))
    assert torch.equal(clips, before)


@pytest.mark.parametrize("kind", OF_PIXELS)
def test_clips_do_not_depend_on_each_other_and_frames_keep_their_order(kind: str) -> None:
    clips = moving_clips()
    torch.manual_seed(0)
    together = corrupt(clips, kind=kind, severity=2)
    torch.manual_seed(0)
    assert torch.equal(corrupt(clips[:1], kind=kind, severity=2), together[:1])
    differences = (together[:, :, None].double() - clips[:, None].double()).abs().mean(dim=(3, 4, 5))
    if kind != "brightness":
        assert torch.equal(differences.argmin(dim=2), torch.arange(16).expand(2, 16))


@pytest.mark.parametrize(("severity", "std"), zip(SEVERITIES, (0.08, 0.12, 0.18, 0.26, 0.38), strict=True))
def test_noise_has_imagenet_c_s_deviation_and_is_new_in_every_frame(severity: int, std: float) -> None:
    grey = torch.full((1, 4, 64, 64, 3), 128, dtype=torch.uint8)
    noise = (corrupt(grey, kind="gaussian_noise", severity=severity).numpy() - 128.0) / 255
    # Clipping at black and white takes some off the two strongest.
    clipped = np.clip(np.random.default_rng(0).normal(128 / 255, std, size=200_000), 0, 1).std()
    assert noise.std() == pytest.approx(clipped, rel=0.02)
    assert abs(np.corrcoef(noise[0, 0].ravel(), noise[0, 1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(("severity", "sigma"), zip(SEVERITIES, (1, 2, 3, 4, 6), strict=True))
def test_blur_is_imagenet_c_s_on_its_frames_and_scaled_on_others(severity: int, sigma: float) -> None:
    for short_side in (256, 128):
        frame = np.random.default_rng(0).integers(256, size=(short_side, short_side + 20, 3), dtype=np.uint8)
        spoilt = corrupt(torch.from_numpy(frame)[None, None], kind="gaussian_blur", severity=severity)[0, 0].numpy()
        own = sigma * short_side / 256
        expected = gaussian_filter(frame.astype(float), (own, own, 0), mode="mirror", truncate=4)
        assert np.abs(spoilt - expected).max() < 1.5


@pytest.mark.parametrize(("severity", "sigma"), zip(SEVERITIES, (0.4, 0.6, 0.7, 0.8, 1.0), strict=True))
def test_blur_of_small_frames_is_cifar_c_s(severity: int, sigma: float) -> None:
    frame = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    spoilt = corrupt(torch.from_numpy(frame)[None, None], kind="gaussian_blur", severity=severity)[0, 0].numpy()
    expected = gaussian_filter(frame.astype(float), (sigma, sigma, 0), mode="mirror", truncate=4)
    assert np.abs(spoilt - expected).max() < 2


@pytest.mark.parametrize(("severity", "quality"), zip(SEVERITIES, (25, 18, 15, 10, 7), strict=True))
def test_compression_is_that_of_pillow_at_imagenet_c_s_quality(severity: int, quality: int) -> None:
    clips = moving_clips()
    spoilt = corrupt(clips, kind="jpeg_compression", severity=severity)
    with io.BytesIO() as file:
        Image.fromarray(clips[1, 5].numpy()).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file).convert("RGB")).astype(float)
    assert np.abs(spoilt[1, 5].numpy() - expected).mean() < 1


@pytest.mark.parametrize(("severity", "added"), zip(SEVERITIES, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
def test_brightness_adds_to_the_value_of_the_standard_library_s_hsv(severity: int, added: float) -> None:
    colours = np.random.default_rng(0).integers(256, size=(60, 3), dtype=np.uint8)
    colours[:3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    clips = torch.from_numpy(colours).view(1, 1, 6, 10, 3)
    spoilt = corrupt(clips, kind="brightness", severity=severity).view(-1, 3).numpy()
    for colour, found in zip(colours, spoilt, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(colour / 255))
        expected = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1)))
        np.testing.assert_allclose(found, expected, atol=0.51)


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_only_five_severities_are_known(severity: int) -> None:
    with pytest.raises(ValueError, match=f"severity={severity} must be 1, 2, 3, 4 or 5"):
        corrupt(moving_clips(), kind="frame_rate", severity=severity)


def test_faulty_input_is_refused() -> None:
    with pytest.raises(ValueError, match="kind='fog' must be one of gaussian_noise, gaussian_blur"):
        corrupt(moving_clips(), kind="fog", severity=1)
    with pytest.raises(ValueError, match="uint8"):
        corrupt(moving_clips().float(), kind="frame_rate", severity=1)
