from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import _color, _geometry, _misc

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


@pytest.mark.parametrize("changed", [name for name in ALWAYS if name != "solarize_probability"])
def test_no_draw_depends_on_another_setting(changed: str) -> None:
    """What is switched on or off changes nothing else: not the crop, not the other steps."""
    drawn = []
    for probability in (0.0, 1.0):
        torch.manual_seed(0)
        settings = {"gray_probability": 0.3, "solarize_probability": 0.3} | {changed: probability}
        drawn.append(ContrastiveTransform(size=32, **settings).draw([(48, 64)] * 8, num_frames=2))
    assert drawn[0].parts == drawn[1].parts
    own = {
        "jitter_probability": {"jitter_order", "jitter_factors"},
        "gray_probability": {"gray"},
        "blur_probability": {"blur_sigma"},
        "channel_mix_probability": {"mixed"},
    }[changed]
    different = {name for name in drawn[0].values if not torch.equal(drawn[0].values[name], drawn[1].values[name])}
    assert different == own


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
        ({"arithmetic": "float16"}, "arithmetic='float16' must be one of float32, bfloat16"),
        ({"color_jitter": [0.4, 0.4, 0.4, 0.6]}, "hue"),
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastiveTransform(**({"size": 32} | settings))


# --- the laws of the draws are torchvision's --------------------------------------------------------------------------


class TorchThatDraws:
    """torch, as torchvision's transforms see it, whose uniform numbers are these ones."""

    def __init__(self, numbers: list[float]) -> None:
        self.numbers = iter(numbers)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, *_: int) -> Any:
        return SimpleNamespace(uniform_=self._uniform)

    def _uniform(self, low: float, high: float) -> torch.Tensor:
        return torch.tensor(float(low) + next(self.numbers) * (float(high) - float(low)), dtype=torch.float64)

    def randint(self, low: int, high: int, size: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor([low + int(next(self.numbers) * (high - low))])

    def randperm(self, number: int) -> torch.Tensor:
        return torch.argsort(torch.tensor([next(self.numbers) for _ in range(number)], dtype=torch.float64))


@pytest.mark.parametrize("size", [(240, 320), (320, 240), (48, 64), (7, 5), (100, 900), (900, 100)])
@pytest.mark.parametrize("aspects", [(3 / 4, 4 / 3), (0.5, 2.0), (1.0, 1.0)])
def test_crops_are_those_of_torchvision_by_the_same_numbers(
    size: tuple[int, int], aspects: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    transform = ContrastiveTransform(size=32, min_area=0.2, min_aspect=aspects[0], max_aspect=aspects[1])
    law = v2.RandomResizedCrop(32, scale=(0.2, 1.0), ratio=aspects)
    frame = torch.empty(3, *size, device="meta")
    middles = 0
    for _ in range(100):
        numbers = torch.rand(22, dtype=torch.float64).tolist()
        monkeypatch.setattr(_geometry, "torch", TorchThatDraws(numbers))
        expected = tuple(law.make_params([frame]).values())
        monkeypatch.undo()
        assert transform._area_crop(*size, iter(numbers)) == expected
        middles += expected == ((size[0] - expected[2]) // 2, (size[1] - expected[3]) // 2, *expected[2:])
    assert middles > 90 or max(size) < 900, "no crop of these aspects has a fifth of so long a frame"


@pytest.mark.parametrize("strengths", [(0.4, 0.4, 0.4, 0.1), (0.8, 1.5, 0.0, 0.5), (0.0, 0.0, 0.0, 0.2)])
def test_jitter_and_blur_are_those_of_torchvision_by_the_same_numbers(
    strengths: tuple[float, float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    jitter, gaussian = v2.ColorJitter(*strengths), v2.GaussianBlur(5, sigma=(0.1, 2.0))
    transform = ContrastiveTransform(size=32, color_jitter=strengths, jitter_probability=1.0, blur_probability=1.0)
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for _ in range(50):
        numbers = torch.rand(24, dtype=torch.float64).tolist()
        look = transform._look(iter(numbers))
        # torchvision draws no number for a strength of 0.
        factors = [number for number, strength in zip(numbers[6:10], strengths, strict=True) if strength]
        monkeypatch.setattr(_color, "torch", TorchThatDraws([*numbers[2:6], *factors]))
        expected = jitter.make_params([])
        monkeypatch.setattr(_misc, "torch", TorchThatDraws([numbers[22]]))
        sigma = gaussian.make_params([])["sigma"]
        monkeypatch.undo()
        order = [step for step in expected["fn_idx"].tolist() if strengths[step]]
        assert [step for step in look.jitter_order if step >= 0] == order
        for step in order:
            assert look.jitter_factors[step] == pytest.approx(expected[names[step]], abs=1e-12)
        assert look.blur_sigma == pytest.approx(sigma[0], abs=1e-12)


def test_every_step_is_drawn_as_often_as_asked_and_by_itself() -> None:
    probabilities = {
        "flip_probability": 0.5,
        "jitter_probability": 0.8,
        "gray_probability": 0.2,
        "channel_mix_probability": 0.3,
        "blur_probability": 0.5,
        "solarize_probability": 0.2,
    }
    values = ContrastiveTransform(size=32, **probabilities).draw([(48, 64)] * 4000, num_frames=2).values  # type: ignore[arg-type]
    drawn = {
        "flip_probability": values["mirrored"],
        "jitter_probability": values["jitter_order"].amax(1) >= 0,
        "gray_probability": values["gray"],
        "channel_mix_probability": values["mixed"],
        "blur_probability": values["blur_sigma"] > 0,
        "solarize_probability": values["solarized"],
    }
    for name, probability in probabilities.items():
        assert float(drawn[name].float().mean()) == pytest.approx(probability, abs=0.035)  # 4.4 sigma
    together = torch.corrcoef(torch.stack([flags.float() for flags in drawn.values()]))
    assert (together - torch.eye(6)).abs().max() < 0.07
    orders = torch.unique(values["jitter_order"][drawn["jitter_probability"]], dim=0, return_counts=True)[1]
    assert len(orders) == 24 and orders.min() > 80  # of 133


def test_rows_of_the_mix_are_uniform_on_the_simplex() -> None:
    mixes = ContrastiveTransform(size=32, channel_mix_probability=1.0).draw([(8, 8)] * 3000, num_frames=1).values["mix"]
    torch.testing.assert_close(mixes.sum(dim=2), torch.ones(3000, 3))
    assert (mixes >= 0).all()
    # A weight of Dirichlet(1, 1, 1) has density 2 (1 - x): mean 1/3, square 1/6.
    torch.testing.assert_close(mixes.mean(dim=0), torch.full((3, 3), 1 / 3), atol=0.02, rtol=0)
    torch.testing.assert_close(mixes.square().mean(dim=0), torch.full((3, 3), 1 / 6), atol=0.02, rtol=0)
