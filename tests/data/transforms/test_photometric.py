"""The work on many clips at once is torchvision's, done clip by clip."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ssl_video.data.transforms import photometric
from ssl_video.data.transforms.contrastive import ContrastiveTransform

# In parts of the range of the pixels: 1/400 of a grey level.
TOLERANCE = 1e-5
FACTORS = [0.0, 0.2, 0.6, 1.0, 1.3, 1.8]
HUES = [-0.5, -0.45, -0.4, -1 / 3, -0.3, -0.25, -0.2, -1 / 6, -0.1, -1 / 12, -0.03, 0.0]

EVERYTHING: dict[str, Any] = {
    "color_jitter": [0.8, 0.8, 0.8, 0.5],
    "jitter_probability": 0.8,
    "gray_probability": 0.3,
    "channel_mix_probability": 0.3,
    "blur_probability": 0.5,
    "solarize_probability": 0.3,
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
}


def clips_of(number: int, *, num_frames: int = 3, height: int = 17, width: int = 20) -> Tensor:
    """Noise, with colours that are on an edge of the hue: greys, pure ones, black and white."""
    clips = torch.rand(number, 3, num_frames, height, width)
    edges = torch.tensor([[r, g, b] for r in (0.0, 0.5, 1.0) for g in (0.0, 0.5, 1.0) for b in (0.0, 0.5, 1.0)])
    clips[:, :, 0, :9, :3] = edges.T.reshape(3, 9, 3)
    return clips


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (photometric.change_brightness_, functional.adjust_brightness),
        (photometric.change_contrast_, functional.adjust_contrast),
        (photometric.change_saturation_, functional.adjust_saturation),
    ],
)
def test_steps_with_a_factor_are_torchvisions(ours: Callable[..., Tensor], theirs: Callable[..., Tensor]) -> None:
    clips = clips_of(len(FACTORS))
    expected = torch.stack(
        [theirs(clip.flatten(1, 2), factor).view_as(clip) for clip, factor in zip(clips, FACTORS, strict=True)]
    )
    assert ours(clips, torch.tensor(FACTORS)) is clips
    torch.testing.assert_close(clips, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("factor", [*HUES, *(-hue for hue in HUES)])
def test_hue_is_torchvisions(factor: float) -> None:
    clips = clips_of(2, height=40, width=50)
    expected = torch.stack([functional.adjust_hue(clip.flatten(1, 2), factor).view_as(clip) for clip in clips])
    turn, rest = photometric.hue_turn(factor)
    assert photometric.turn_hue_(clips, torch.tensor([rest, rest]), turn=turn) is clips
    torch.testing.assert_close(clips, expected, atol=TOLERANCE, rtol=0)


def test_each_clip_of_a_turn_has_its_own_rest() -> None:
    clips = clips_of(3)
    hues = [0.01, 0.05, 0.08]
    expected = torch.stack(
        [functional.adjust_hue(clip.flatten(1, 2), hue).view_as(clip) for clip, hue in zip(clips, hues, strict=True)]
    )
    photometric.turn_hue_(clips, 6 * torch.tensor(hues), turn=photometric.HueTurn(0, True))
    torch.testing.assert_close(clips, expected, atol=TOLERANCE, rtol=0)


def test_grey_is_torchvisions() -> None:
    clips = clips_of(2)
    expected = torch.stack([functional.rgb_to_grayscale(clip.transpose(0, 1), 3).transpose(0, 1) for clip in clips])
    torch.testing.assert_close(photometric.to_gray_(clips), expected, atol=TOLERANCE, rtol=0)


def test_channels_are_mixed_by_each_clips_matrix() -> None:
    clips, matrices = clips_of(3), torch.rand(3, 3, 3)
    expected = torch.einsum("nij,njthw->nithw", matrices, clips)
    torch.testing.assert_close(photometric.mix_channels_(clips, matrices), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kernel_size", [1, 3, 13, 23, 33])
def test_blur_is_torchvisions(kernel_size: int) -> None:
    clips, sigmas = clips_of(3), [0.1, 0.7, 2.0]
    expected = torch.stack(
        [
            functional.gaussian_blur(clip.transpose(0, 1), [kernel_size] * 2, [sigma] * 2).transpose(0, 1)
            for clip, sigma in zip(clips, sigmas, strict=True)
        ]
    )
    blurred = photometric.blur_(clips, torch.tensor(sigmas), kernel_size=kernel_size)
    torch.testing.assert_close(blurred, expected, atol=TOLERANCE, rtol=0)


def test_blur_is_float32_where_the_network_is_not() -> None:
    clips, sigmas = clips_of(2), torch.tensor([1.0, 2.0])
    expected = photometric.blur_(clips.clone(), sigmas, kernel_size=13)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(photometric.blur_(clips, sigmas, kernel_size=13), expected)


# --- all of it --------------------------------------------------------------------------------------------------------


def by_torchvision(clip: Tensor, values: dict[str, Tensor], *, kernel_size: int) -> Tensor:
    """What torchvision's functions make of one clip `[3, T, h, w]` uint8 with given draws, in the drawn order."""
    tall = (clip.flip(-1) if values["mirrored"] else clip).float().div(255).flatten(1, 2)
    jitter = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    for step in values["jitter_order"].tolist():
        if step >= 0:
            tall = jitter[step](tall, values["jitter_factors"][step].item())
    if values["gray"]:
        tall = functional.rgb_to_grayscale(tall, num_output_channels=3)
    if values["mixed"]:
        tall = (values["mix"] @ tall.flatten(1)).view_as(tall)
    frames = tall.unflatten(1, clip.shape[1:3])
    if values["blur_sigma"] > 0:
        frames = functional.gaussian_blur(frames, [kernel_size] * 2, [values["blur_sigma"].item()] * 2)
    return functional.solarize(frames, threshold=0.5) if values["solarized"] else frames


def drawn(transform: ContrastiveTransform, number: int, *, num_frames: int = 3) -> tuple[Tensor, dict[str, Tensor]]:
    """Clips as a reader gives them, and what was drawn for them."""
    clips = torch.randint(256, (number, num_frames, transform.size, transform.size, 3), dtype=torch.uint8)
    values = transform.draw([(40, 50)] * number, num_frames=num_frames).values
    return clips.permute(0, 4, 1, 2, 3), dict(values)


def values_of(values: dict[str, Tensor], place: Any) -> dict[str, Tensor]:
    return {name: value[place] for name, value in values.items()}


@pytest.mark.parametrize("settings", [{}, {"blur_kernel_size": 5}, {"jitter_probability": 1.0, "size": 9}])
def test_clips_are_finished_as_torchvision_does_one_by_one(settings: dict[str, Any]) -> None:
    transform = ContrastiveTransform(**({"size": 24} | EVERYTHING | settings))
    clips, values = drawn(transform, 60)
    before = clips.clone()
    finished = transform.finish(clips, values)
    assert (finished.dtype, finished.is_contiguous(), finished.shape) == (torch.float32, True, clips.shape)
    assert torch.equal(clips, before)
    for place, clip in enumerate(clips):
        expected = by_torchvision(clip, values_of(values, place), kernel_size=transform.blur_kernel_size)
        torch.testing.assert_close(finished[place], expected, atol=TOLERANCE, rtol=0)


def test_every_order_of_the_jitter_is_kept() -> None:
    transform = ContrastiveTransform(size=8, **(EVERYTHING | {"jitter_probability": 1.0}))
    clips, values = drawn(transform, 24, num_frames=1)
    orders = torch.tensor(list(permutations(range(4))))
    values["jitter_order"] = orders
    finished = transform.finish(clips, values)
    for place, clip in enumerate(clips):
        expected = by_torchvision(clip, values_of(values, place), kernel_size=transform.blur_kernel_size)
        torch.testing.assert_close(finished[place], expected, atol=TOLERANCE, rtol=0, msg=str(orders[place].tolist()))


@pytest.mark.parametrize("consistent", [True, False])
def test_one_by_one_all_together_and_in_parts_are_the_same(consistent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    transform = ContrastiveTransform(size=24, consistent=consistent, **EVERYTHING)
    clips, values = drawn(transform, 20)
    together = transform.finish(clips, values)
    alone = [transform.finish(clips[n : n + 1], values_of(values, slice(n, n + 1))) for n in range(20)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)
    for at_once in (1, 3, 7, 1000):
        monkeypatch.setitem(photometric.CHUNK_VALUES, "cpu", at_once * clips[0].numel())
        torch.testing.assert_close(transform.finish(clips, values), together, atol=1e-6, rtol=0)


def test_draws_per_frame_are_each_frames_own() -> None:
    transform = ContrastiveTransform(size=24, consistent=False, **EVERYTHING)
    clips, values = drawn(transform, 4)
    finished = transform.finish(clips, values)
    assert finished.is_contiguous()
    for place in range(4):
        for time in range(3):
            expected = by_torchvision(
                clips[place, :, time : time + 1], values_of(values, (place, time)), kernel_size=13
            )
            torch.testing.assert_close(finished[place, :, time : time + 1], expected, atol=TOLERANCE, rtol=0)


def test_no_clips_are_no_clips() -> None:
    transform = ContrastiveTransform(size=24)
    clips, values = drawn(transform, 2)
    assert transform.finish(clips[:0], values_of(values, slice(0, 0))).shape == (0, 3, 3, 24, 24)


def test_bfloat16_is_a_few_levels_off() -> None:
    settings = EVERYTHING | {"color_jitter": [0.4, 0.4, 0.4, 0.1]}
    transform = ContrastiveTransform(size=24, **settings)
    clips, values = drawn(transform, 60)
    exact = transform.finish(clips, values)
    rough = ContrastiveTransform(size=24, arithmetic="bfloat16", **settings).finish(clips, values)
    assert rough.dtype == torch.float32
    difference = (rough - exact).abs() * 255
    assert 0 < difference.mean() < 0.7
    assert difference.max() < 6


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("consistent", [True, False])
def test_a_gpu_gives_the_same(consistent: bool) -> None:
    transform = ContrastiveTransform(size=64, consistent=consistent, **EVERYTHING)
    clips, values = drawn(transform, 40)
    expected = transform.finish(clips, values)
    finished = transform.finish(clips.cuda(), values)
    assert finished.is_cuda
    torch.testing.assert_close(finished.cpu(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.gpu
def test_fast_matrices_and_autocast_change_nothing_on_a_gpu() -> None:
    transform = ContrastiveTransform(size=64, **EVERYTHING)
    clips, values = drawn(transform, 20)
    expected = transform.finish(clips, values)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            finished = transform.finish(clips.cuda(), values)
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(finished.cpu(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
def test_nothing_waits_for_the_gpu(arithmetic: Any) -> None:
    transform = ContrastiveTransform(size=64, arithmetic=arithmetic, **EVERYTHING)
    clips, values = drawn(transform, 40)
    on_gpu = clips.cuda()
    transform.finish(on_gpu, values)
    torch.cuda.set_sync_debug_mode("error")
    try:
        transform.finish(on_gpu, values)
    finally:
        torch.cuda.set_sync_debug_mode("default")
