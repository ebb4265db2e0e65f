from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.video import R3D_18_Weights
from torchvision.transforms import functional

from ssl_video.data.readers.base import FramePart
from ssl_video.data.transforms.resize_center_crop import Crops, ResizeCenterCrop
from ssl_video.evaluation.clips import NUM_CROPS


def test_centre_is_cut_and_normalised() -> None:
    frames = torch.randint(256, (2, 3, 6, 8, 3), dtype=torch.uint8)
    clips = ResizeCenterCrop(resize=[6, 8], crop=4, mean=[0.45, 0.4, 0.5], std=[0.225, 0.2, 0.3])(frames)
    expected = (frames[:, :, 1:5, 2:6].numpy() / 255 - np.array([0.45, 0.4, 0.5])) / np.array([0.225, 0.2, 0.3])
    assert clips.shape == (2, 3, 3, 4, 4)
    np.testing.assert_allclose(clips.permute(0, 2, 3, 4, 1).numpy(), expected, atol=1e-5)


def test_short_side_keeps_the_aspect() -> None:
    transform = ResizeCenterCrop(resize=64, crop=64)
    assert transform(torch.zeros(1, 2, 100, 300, 3, dtype=torch.uint8)).shape == (1, 3, 2, 64, 64)
    parts = transform.draw([(100, 300), (300, 100), (32, 32)], num_frames=2).parts
    assert parts == [
        FramePart(size=(64, 192), window=(0, 64, 64, 64)),
        FramePart(size=(192, 64), window=(64, 0, 64, 64)),
        FramePart(size=(64, 64), window=(0, 0, 64, 64)),
    ]


def test_nothing_is_random() -> None:
    transform = ResizeCenterCrop(resize=16, crop=16)
    frames = torch.randint(256, (1, 2, 20, 30, 3), dtype=torch.uint8)
    state = torch.get_rng_state()
    assert torch.equal(transform(frames), transform(frames))
    assert torch.equal(torch.get_rng_state(), state)


def test_size_that_the_reader_delivers_is_not_resized_again() -> None:
    transform = ResizeCenterCrop(resize=[16, 24], crop=16, mean=[0, 0, 0], std=[1, 1, 1])
    frames = torch.randint(256, (1, 1, 16, 24, 3), dtype=torch.uint8)
    np.testing.assert_allclose(transform(frames)[0, :, 0].permute(1, 2, 0).numpy() * 255, frames[0, 0, :, 4:20].numpy())


def test_crop_larger_than_the_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="crop=65"):
        ResizeCenterCrop(resize=64, crop=65)


# --- several squares --------------------------------------------------------------------------------------------------

PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


def levels(clips: torch.Tensor) -> np.ndarray:
    """`[N, 3, T, h, w]` in [0, 1] as `[N, T, h, w, 3]` uint8."""
    return (clips.permute(0, 2, 3, 4, 1) * 255).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("size", [(6, 11), (11, 6), (7, 12), (12, 7), (8, 8), (5, 9), (5, 5)])
def test_ten_crops_are_those_of_torchvision(size: tuple[int, int]) -> None:
    frames = torch.randint(256, (2, 3, *size, 3), dtype=torch.uint8)
    clips = ResizeCenterCrop(resize=size, crop=5, crops="ten", **PLAIN)(frames)
    assert clips.shape == (20, 3, 3, 5, 5)
    for number, clip in enumerate(frames.permute(0, 1, 4, 2, 3)):
        ten = torch.stack([square.permute(0, 2, 3, 1) for square in functional.ten_crop(clip, [5, 5])])
        np.testing.assert_array_equal(levels(clips[10 * number : 10 * number + 10]), ten.numpy())
        five = torch.stack([square.permute(0, 2, 3, 1) for square in functional.five_crop(clip, [5, 5])])
        np.testing.assert_array_equal(levels(clips[10 * number : 10 * number + 5]), five.numpy())


@pytest.mark.parametrize("upright", [False, True])
def test_three_crops_lie_along_the_longer_side(upright: bool) -> None:
    """Frames of 6 x 13 pixels, or 13 x 6, whose values are cut by hand."""
    wide = torch.arange(2 * 6 * 13 * 3, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(1, 2, 6, 13, 3)
    frames = wide.transpose(2, 3) if upright else wide
    clips = ResizeCenterCrop(resize=frames.shape[2:4], crop=5, crops="three", **PLAIN)(frames)
    assert clips.shape == (3, 3, 2, 5, 5)
    # A margin of one pixel across leaves 0 (half to even), one of eight along 0, 4, 8.
    expected = np.stack([wide[0, :, 0:5, start : start + 5].numpy() for start in (0, 4, 8)])
    np.testing.assert_array_equal(levels(clips), expected.swapaxes(2, 3) if upright else expected)


def test_three_crops_of_a_square_frame_no_larger_are_one() -> None:
    """The longer side equals the crop: start, middle and end are the same square."""
    frames = torch.randint(256, (2, 2, 5, 5, 3), dtype=torch.uint8)
    clips = ResizeCenterCrop(resize=5, crop=5, crops="three", **PLAIN)(frames)
    np.testing.assert_array_equal(levels(clips), frames.numpy().repeat(3, axis=0))


@pytest.mark.parametrize("size", [(6, 13), (13, 6), (7, 12), (9, 9)])
def test_the_middle_square_is_the_same_in_all(size: tuple[int, int]) -> None:
    frames = torch.randint(256, (2, 3, *size, 3), dtype=torch.uint8)
    one = ResizeCenterCrop(resize=size, crop=5)
    torch.testing.assert_close(one.with_crops("three")(frames)[1::3], one(frames))
    torch.testing.assert_close(one.with_crops("ten")(frames)[4::10], one(frames))
    torch.testing.assert_close(one.with_crops("centre")(frames), one(frames))


@pytest.mark.parametrize(("crops", "number"), NUM_CROPS.items())
def test_crops_of_a_clip_stand_together(crops: Crops, number: int) -> None:
    """Each clip of one level gives squares of that level, as many as evaluation counts on."""
    frames = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1, 1, 1).expand(3, 2, 16, 24, 3)
    clips = ResizeCenterCrop(resize=16, crop=8, crops=crops, **PLAIN)(frames)
    assert levels(clips)[:, 0, 0, 0, 0].tolist() == [level for level in (10, 20, 30) for _ in range(number)]


def test_another_number_of_crops_is_a_copy() -> None:
    one = ResizeCenterCrop(resize=[128, 171], crop=112, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    ten = one.with_crops("ten")
    assert (one.crops, ten.crops) == ("centre", "ten")
    sizes = {part.size for way in (one, ten) for part in way.draw([(240, 320)], num_frames=1).parts}
    assert sizes == {(128, 171)}
    frames = torch.randint(256, (1, 1, 240, 320, 3), dtype=torch.uint8)
    direct = ResizeCenterCrop(resize=[128, 171], crop=112, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], crops="ten")
    torch.testing.assert_close(ten(frames), direct(frames))
    assert one(frames).shape[0] == 1


def test_another_word_for_the_crops_is_refused() -> None:
    wrong: Any = "five"
    with pytest.raises(ValueError, match="crops='five' must be one of centre, three, ten"):
        ResizeCenterCrop(resize=8, crop=8, crops=wrong)
    with pytest.raises(ValueError, match="crops='five'"):
        ResizeCenterCrop(resize=8, crop=8).with_crops(wrong)


# --- torchvision's own way of resizing --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(97, 131), (240, 320), (480, 270)])
@pytest.mark.parametrize("resize", [[128, 171], 120])
def test_without_antialias_it_is_torchvisions_video_transform(size: tuple[int, int], resize: int | list[int]) -> None:
    """To the bit: a fifth of the pixels is one level off when uint8 frames are resized as such."""
    mean, std = [0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]
    frames = torch.randint(256, (2, 2, *size, 3), dtype=torch.uint8)
    transform = ResizeCenterCrop(resize=resize, crop=112, mean=mean, std=std, antialias=False)
    theirs = R3D_18_Weights.KINETICS400_V1.transforms(resize_size=[resize] if isinstance(resize, int) else resize)
    torch.testing.assert_close(transform(frames), theirs(frames.permute(0, 1, 4, 2, 3)), atol=1e-6, rtol=0)
    assert transform.draw([size] * 2, num_frames=2).parts == [FramePart()] * 2, "the reader gives whole frames"
    with_antialias = ResizeCenterCrop(resize=resize, crop=112, mean=mean, std=std)
    if min(size) > 128:
        assert (with_antialias(frames) - transform(frames)).abs().mean() > 0.1
