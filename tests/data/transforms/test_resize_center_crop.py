import numpy as np
import pytest
import torch

from ssl_video.data.transforms.resize_center_crop import ResizeCenterCrop


def test_centre_is_cut_and_normalised() -> None:
    frames = torch.randint(256, (2, 3, 6, 8, 3), dtype=torch.uint8)
    clips = ResizeCenterCrop(resize=[6, 8], crop=4, mean=[0.45, 0.4, 0.5], std=[0.225, 0.2, 0.3])(frames)
    expected = (frames[:, :, 1:5, 2:6].numpy() / 255 - np.array([0.45, 0.4, 0.5])) / np.array([0.225, 0.2, 0.3])
    assert clips.shape == (2, 3, 3, 4, 4)
    np.testing.assert_allclose(clips.permute(0, 2, 3, 4, 1).numpy(), expected, atol=1e-5)


def test_short_side_keeps_the_aspect() -> None:
    transform = ResizeCenterCrop(resize=64, crop=64)
    assert transform(torch.zeros(1, 2, 100, 300, 3, dtype=torch.uint8)).shape == (1, 3, 2, 64, 64)
    assert transform.decode_size(100, 300) == (64, 192)
    assert transform.decode_size(300, 100) == (192, 64)
    assert transform.decode_size(32, 32) is None


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
