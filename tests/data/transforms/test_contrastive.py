import time
from typing import Any

import numpy as np
import pytest
import torch

from ssl_video.data.transforms.contrastive import ContrastiveTransform

ALWAYS: dict[str, Any] = {
    "jitter_probability": 1.0,
    "gray_probability": 0.0,
    "blur_probability": 1.0,
    "solarize_probability": 1.0,
    "channel_mix_probability": 1.0,
}
PLAIN: dict[str, Any] = {
    "flip_probability": 0.0,
    "jitter_probability": 0.0,
    "gray_probability": 0.0,
    "blur_probability": 0.0,
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
}


def picture(height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.randint(256, (height, width, 3), dtype=torch.uint8)


def still_clips(num_views: int = 2, num_frames: int = 5) -> torch.Tensor:
    return picture().expand(num_views, num_frames, -1, -1, -1)


@pytest.mark.parametrize("settings", [ALWAYS, {"gray_probability": 1.0}, {"short_side": [40, 60]}])
def test_clip_of_equal_frames_stays_one(settings: dict[str, Any]) -> None:
    transform = ContrastiveTransform(size=32, **settings)
    for _ in range(10):
        clips = transform(still_clips())
        torch.testing.assert_close(clips, clips[:, :, :1].expand_as(clips), rtol=0, atol=1e-5)


def test_draws_per_frame_would_fail_the_test_above() -> None:
    transform = ContrastiveTransform(size=32, **ALWAYS)
    frames = still_clips(num_views=1)[0].unsqueeze(1)  # each frame as a clip of its own
    clips = transform(frames)
    assert (clips - clips[:1]).abs().max() > 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {"min_area": 0.2, "max_area": 0.5},
        {"flip_probability": 0.5},
        {"jitter_probability": 1.0, "color_jitter": [0.8, 0.8, 0.8, 0.2]},
        {"gray_probability": 0.5},
        {"blur_probability": 1.0},
        {"solarize_probability": 0.5},
    ],
)
def test_every_draw_is_per_clip_and_the_ablation_per_frame(settings: dict[str, Any]) -> None:
    still = still_clips(num_views=1, num_frames=16)
    settings = PLAIN | {"max_area": 1.0, "min_area": 1.0, "min_aspect": 1.3, "max_aspect": 1.34} | settings
    for consistent in (True, False):
        clips = ContrastiveTransform(size=32, consistent=consistent, **settings)(still)
        assert clips.shape == (1, 3, 16, 32, 32)
        spread = float((clips - clips[:, :, :1]).abs().max())
        assert spread < 1e-5 if consistent else spread > 0.01


def test_clips_of_one_video_get_their_own_draws() -> None:
    clips = ContrastiveTransform(size=32, **ALWAYS)(still_clips(num_views=3))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (clips[first] - clips[second]).abs().max() > 0.1


def test_same_seed_same_clips() -> None:
    transform = ContrastiveTransform(size=32, channel_mix_probability=0.5)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(transform(still_clips()))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_shape_type_and_layout() -> None:
    clips = ContrastiveTransform(size=24)(torch.randint(256, (2, 3, 48, 64, 3), dtype=torch.uint8))
    assert clips.shape == (2, 3, 3, 24, 24)
    assert clips.dtype == torch.float32
    assert torch.isfinite(clips).all()


def test_whole_square_frame_without_draws_is_the_frame_normalised() -> None:
    frames = torch.randint(256, (1, 2, 32, 32, 3), dtype=torch.uint8)
    settings = PLAIN | {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 2.0]}
    clips = ContrastiveTransform(size=32, short_side=[32, 32], **settings)(frames)
    expected = (frames.numpy() / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.25, 2.0])
    np.testing.assert_allclose(clips.permute(0, 2, 3, 4, 1).numpy(), expected, atol=1e-6)


def ramp_extent(clips: torch.Tensor) -> tuple[float, float]:
    """Return the shares of width and height seen in clips of `coordinates`."""
    x, y = clips[0, 0, 0], clips[0, 1, 0]
    return float(x.max() - x.min()), float(y.max() - y.min())


def coordinates(side: int = 256) -> torch.Tensor:
    """Return a clip whose red is the column and whose green is the row."""
    ramp = torch.arange(side, dtype=torch.uint8)
    frame = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side).byte()], -1)
    return frame[None, None]


def test_area_of_the_crops_stays_within_the_limits() -> None:
    transform = ContrastiveTransform(size=64, min_area=0.2, max_area=0.5, **PLAIN)
    areas = [np.prod(ramp_extent(transform(coordinates()))) for _ in range(200)]
    assert 0.17 < min(areas) < 0.25
    assert 0.42 < max(areas) < 0.52


def test_short_side_crops_are_square_and_within_the_range() -> None:
    transform = ContrastiveTransform(size=64, short_side=[80, 128], **PLAIN)
    extents = np.array([ramp_extent(transform(coordinates())) for _ in range(200)])
    assert np.abs(extents[:, 0] - extents[:, 1]).max() < 0.02
    assert 0.48 < extents.min() < 0.54  # 64 / 128
    assert 0.74 < extents.max() < 0.81  # 64 / 80


def test_channel_mix_keeps_greys_and_the_range() -> None:
    transform = ContrastiveTransform(size=32, channel_mix_probability=1.0, **PLAIN)
    grey = picture()[..., :1].expand(-1, -1, 3)
    mixed = transform(grey.expand(1, 2, -1, -1, -1))
    torch.testing.assert_close(mixed[:, :1].expand_as(mixed), mixed, rtol=0, atol=1e-5)
    assert mixed.max() > 0.5  # it is not black
    coloured = transform(still_clips())
    assert coloured.min() >= 0
    assert coloured.max() <= 1 + 1e-6


def test_channel_mix_changes_colours_but_one_matrix_serves_the_clip() -> None:
    red, blue = (torch.tensor(colour, dtype=torch.uint8).expand(1, 3, 8, 8, 3) for colour in ([255, 0, 0], [0, 0, 255]))
    transform = ContrastiveTransform(size=8, channel_mix_probability=1.0, **PLAIN)
    mixed = transform(red)[0]
    assert torch.equal(mixed, mixed[:, :1, :1, :1].expand_as(mixed))
    assert not torch.allclose(mixed[:, 0, 0, 0], torch.tensor([1.0, 0.0, 0.0]))
    assert not torch.allclose(mixed, transform(blue)[0])


def test_contrast_is_measured_against_the_whole_clip() -> None:
    settings = PLAIN | {"jitter_probability": 1.0, "color_jitter": [0.0, 1.0, 0.0, 0.0]}
    transform = ContrastiveTransform(size=8, **settings)
    dark, bright = (torch.full((8, 8, 3), value, dtype=torch.uint8) for value in (51, 153))
    for _ in range(20):
        clip = transform(torch.stack([dark, bright])[None])[0, 0, :, 0, 0]
        # Both frames move about their common mean 0.4 by one factor; a mean per frame would leave them as they are.
        if clip.max() < 1 and clip.min() > 0:
            assert float(clip.mean()) == pytest.approx(0.4, abs=1e-3)
            assert abs(float(clip[1] - clip[0]) - 0.4) > 1e-4


def test_blur_does_not_leak_across_frames() -> None:
    settings = PLAIN | {"blur_probability": 1.0, "blur_sigma": [2.0, 2.0]}
    frames = torch.stack([torch.zeros(16, 16, 3), torch.full((16, 16, 3), 255)])[None].byte()
    clip = ContrastiveTransform(size=16, **settings)(frames)[0]
    torch.testing.assert_close(clip[:, 0], torch.zeros(3, 16, 16))
    torch.testing.assert_close(clip[:, 1], torch.ones(3, 16, 16))


def test_solarise_inverts_the_upper_half_and_comes_after_blur() -> None:
    frames = torch.randint(256, (1, 2, 32, 32, 3), dtype=torch.uint8)
    values = frames.permute(0, 4, 1, 2, 3) / 255
    settings: dict[str, Any] = PLAIN | {"short_side": [32, 32], "solarize_probability": 1.0}
    clips = ContrastiveTransform(size=32, **settings)(frames)
    torch.testing.assert_close(clips, torch.where(values >= 0.5, 1 - values, values))
    blur: dict[str, Any] = {"blur_probability": 1.0, "blur_sigma": [1.0, 1.0]}
    blurred = ContrastiveTransform(size=32, **(settings | blur | {"solarize_probability": 0.0}))(frames)
    both = ContrastiveTransform(size=32, **(settings | blur))(frames)
    torch.testing.assert_close(both, torch.where(blurred >= 0.5, 1 - blurred, blurred))


def test_without_solarising_no_draw_is_made_for_it() -> None:
    """Runs of before there was solarising resume with the same clips."""
    torch.manual_seed(0)
    ContrastiveTransform(size=32, **PLAIN)(still_clips(num_views=1))
    without = torch.get_rng_state()
    torch.manual_seed(0)
    ContrastiveTransform(size=32, **PLAIN, solarize_probability=0.5)(still_clips(num_views=1))
    assert not torch.equal(without, torch.get_rng_state())
    torch.manual_seed(0)
    ContrastiveTransform(size=32, **PLAIN, solarize_probability=0.0)(still_clips(num_views=1))
    assert torch.equal(without, torch.get_rng_state())


def test_aspect_of_the_crops_stays_within_the_limits() -> None:
    transform = ContrastiveTransform(size=64, min_area=0.2, max_area=0.3, min_aspect=0.5, max_aspect=2.0, **PLAIN)
    extents = np.array([ramp_extent(transform(coordinates())) for _ in range(300)])
    aspects = extents[:, 0] / extents[:, 1]
    assert 0.48 < aspects.min() < 0.56
    assert 1.8 < aspects.max() < 2.1


def test_blur_kernel_can_be_given() -> None:
    point = torch.zeros(1, 1, 33, 33, 3, dtype=torch.uint8)
    point[..., 16, 16, :] = 255
    settings = PLAIN | {"short_side": [33, 33], "blur_probability": 1.0, "blur_sigma": [2.0, 2.0]}
    for kernel_size, reach in ((None, 6), (23, 11), (3, 1)):
        row = ContrastiveTransform(size=33, blur_kernel_size=kernel_size, **settings)(point)[0, 0, 0, 16]
        assert row.nonzero().flatten().tolist() == list(range(16 - reach, 16 + reach + 1))


def test_colour_steps_of_cvrl_stay_within_the_unit_range() -> None:
    settings = PLAIN | {"jitter_probability": 1.0, "color_jitter": [0.8, 0.8, 0.8, 0.2]}
    transform = ContrastiveTransform(size=32, **settings)
    for _ in range(50):
        clips = transform(still_clips())
        assert clips.min() >= 0
        assert clips.max() <= 1


def test_decode_size() -> None:
    assert ContrastiveTransform(size=64).decode_size(240, 320) is None
    transform = ContrastiveTransform(size=64, decode_short_side=120)
    assert transform.decode_size(240, 320) == (120, 160)
    assert transform.decode_size(320, 240) == (160, 120)
    assert transform.decode_size(120, 160) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"min_area": 0.5, "max_area": 0.4}, "min_area=0.5"),
        ({"short_side": [30, 60]}, r"short_side=\[30, 60\]"),
        ({"flip_probability": 1.5}, "flip_probability=1.5"),
        ({"color_jitter": [0.4]}, "4 values"),
        ({"blur_sigma": [2.0, 1.0]}, "blur_sigma"),
        ({"std": [0.2, 0.2, 0.0]}, "std="),
        ({"mean": [0.5]}, "3 values"),
        ({"solarize_probability": -0.1}, "solarize_probability=-0.1"),
        ({"min_aspect": 2.0, "max_aspect": 0.5}, "min_aspect=2.0"),
        ({"blur_kernel_size": 4}, "blur_kernel_size=4"),
        ({"blur_kernel_size": 65}, "blur_kernel_size=65"),
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastiveTransform(**({"size": 32} | settings))


@pytest.mark.slow
def test_two_small_views_take_less_than_a_tenth_of_a_second() -> None:
    transform = ContrastiveTransform(size=64)
    clips = torch.randint(256, (2, 8, 128, 171, 3), dtype=torch.uint8)
    transform(clips)
    start = time.perf_counter()
    for _ in range(10):
        transform(clips)
    assert (time.perf_counter() - start) / 10 < 0.1
