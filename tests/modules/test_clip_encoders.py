"""A clip as one image: the three encodings against loops over the frames, and what all of them share."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_video.modules.clip_encoders import (
    dynamic_image,
    dynamic_image_weights,
    stack_of_differences,
    sum_of_differences,
    sum_of_differences_weights,
)

ENCODERS = [sum_of_differences, dynamic_image, stack_of_differences]


def clips_of(num_frames: int) -> Tensor:
    return torch.rand(2, 3, num_frames, 4, 5, dtype=torch.float64)


@pytest.mark.parametrize("num_frames", [2, 3, 6, 7])
def test_sum_of_differences_is_that_of_all_pairs(num_frames: int) -> None:
    clips = clips_of(num_frames)
    frames = clips.numpy()
    expected = np.zeros_like(frames[:, :, 0])
    for later in range(num_frames):
        for earlier in range(later):
            expected += frames[:, :, later] - frames[:, :, earlier]
    # The scale: all the frames that weigh more than 0 at one end of the range, all others at the other end.
    scale = sum(max(0, 2 * t - num_frames - 1) for t in range(1, num_frames + 1))
    np.testing.assert_allclose(sum_of_differences(clips).numpy(), expected / scale, atol=1e-12)


@pytest.mark.parametrize("num_frames", [2, 3, 6, 7])
def test_dynamic_image_weighs_by_harmonic_numbers(num_frames: int) -> None:
    def harmonic(t: int) -> float:
        return sum(1 / i for i in range(1, t + 1))

    w = num_frames
    alphas = [2 * (w - t + 1) - (w + 1) * (harmonic(w) - harmonic(t - 1)) for t in range(1, w + 1)]
    np.testing.assert_allclose(dynamic_image_weights(w).numpy(), alphas, atol=1e-12)
    clips = clips_of(num_frames)
    expected = sum(alpha * clips[:, :, t].numpy() for t, alpha in enumerate(alphas))
    scale = sum(alpha for alpha in alphas if alpha > 0)
    np.testing.assert_allclose(dynamic_image(clips).numpy(), expected / scale, atol=1e-12)


def test_weights_of_six_frames() -> None:
    assert sum_of_differences_weights(6).tolist() == [-5, -3, -1, 1, 3, 5]
    expected = torch.tensor([-5.15, -0.15, 1.35, 1.683, 1.433, 0.833], dtype=torch.float64)
    torch.testing.assert_close(dynamic_image_weights(6), expected, rtol=0, atol=5e-4)


@pytest.mark.parametrize("weights", [sum_of_differences_weights, dynamic_image_weights])
@pytest.mark.parametrize("num_frames", range(2, 20))
def test_weights_sum_to_zero(weights: Callable[[int], Tensor], num_frames: int) -> None:
    assert abs(weights(num_frames).sum().item()) < 1e-12
    assert weights(num_frames).any()


@pytest.mark.parametrize("num_frames", [2, 5, 6])
def test_stack_of_differences_is_frame_major_and_earlier_minus_later(num_frames: int) -> None:
    clips = clips_of(num_frames)
    stacked = stack_of_differences(clips)
    assert stacked.shape == (2, (num_frames - 1) * 3, 4, 5)
    for t in range(num_frames - 1):
        for channel in range(3):
            expected = clips[:, channel, t] - clips[:, channel, t + 1]
            torch.testing.assert_close(stacked[:, 3 * t + channel], expected, rtol=0, atol=0)


@pytest.mark.parametrize("encode", ENCODERS)
def test_a_clip_that_stands_still_is_encoded_as_zero(encode: Callable[[Tensor], Tensor]) -> None:
    still = (255 * torch.rand(2, 3, 1, 8, 8)).expand(-1, -1, 6, -1, -1)
    largest = encode(still).abs().max().item()
    assert largest == 0 if encode is stack_of_differences else largest < 1e-5 * 255
    assert encode(255 * torch.rand(2, 3, 6, 8, 8)).abs().max() > 1


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("num_frames", [2, 6, 7])
def test_the_range_is_that_of_the_pixels(encode: Callable[[Tensor], Tensor], num_frames: int) -> None:
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * num_frames)  # every clip of pixels at either end
    encoded = encode(corners.view(-1, 1, num_frames, 1, 1))
    torch.testing.assert_close((encoded.min(), encoded.max()), (torch.tensor(-1.0), torch.tensor(1.0)))


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("shape", [(2, 3, 1, 4, 4), (2, 3, 4, 4)])
def test_one_frame_has_no_motion(encode: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="T of at least 2; one frame has no motion"):
        encode(torch.zeros(shape))
