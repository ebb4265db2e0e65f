from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize

from ssl_video.data.readers.base import (
    Cut,
    FramePart,
    check_indices,
    crop_frame,
    cut_frame,
    cut_in_order,
    resize_frames,
)


def test_each_frame_is_decoded_once_and_in_order() -> None:
    decoded: list[int] = []

    def decode(indices: list[int]) -> Iterator[np.ndarray]:
        for index in indices:
            decoded.append(index)
            yield np.full((4, 6, 3), index, dtype=np.uint8)

    asked = [7, 3, 3, 9, 0, 7]
    [frames] = cut_in_order([Cut(np.array(asked))], decode, num_frames=10, name="video")
    assert decoded == [0, 3, 7, 9]
    assert frames.shape == (6, 4, 6, 3)
    assert frames[:, 0, 0, 0].tolist() == asked


@pytest.mark.parametrize("index", [-1, 10, 99])
def test_an_index_outside_the_video_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=rf"frame {index} of video must be in 0\.\.9"):
        check_indices([0, index], num_frames=10, name="video")


@pytest.mark.parametrize("indices", [[], [[0, 1]]])
def test_a_request_is_a_list_of_one_frame_or_more(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="one frame index or more"):
        check_indices(indices, num_frames=10, name="video")


def test_the_box_is_cut_before_scaling() -> None:
    frame = np.zeros((20, 30, 3), dtype=np.uint8)
    frame[5:10, 8:16] = 200
    inside = cut_frame(frame, FramePart((5, 8, 5, 8), (40, 64)))
    np.testing.assert_array_equal(inside, np.full((40, 64, 3), 200))
    np.testing.assert_array_equal(cut_frame(frame, FramePart((4, 7, 3, 5))), frame[4:7, 7:12])


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 0, 21, 4), (0, 27, 4, 4), (0, 0, 0, 4)])
def test_a_box_outside_the_frame_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must lie inside the frame of 20 x 30"):
        crop_frame(np.zeros((20, 30, 3), dtype=np.uint8), box)


@pytest.mark.parametrize("size", [(12, 17), (64, 50), (31, 90)])
def test_scaling_is_that_of_torchvision(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    expected = resize(torch.from_numpy(frame).permute(2, 0, 1), list(size), antialias=True).permute(1, 2, 0).numpy()
    scaled = cut_frame(frame, FramePart(size=size))
    assert np.abs(scaled.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [(12, 17), (112, 112), (31, 90)])
def test_a_clip_at_once_is_scaled_to_the_same_pixels_as_its_frames(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 48, 60, 3), dtype=np.uint8)
    one_by_one = np.stack([cut_frame(frame, FramePart(size=size)) for frame in frames])
    np.testing.assert_array_equal(resize_frames(frames, size), one_by_one)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_and_write_protected_frames_are_scaled_like_others(turns: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    turned = np.rot90(frame, k=turns)
    expected = cut_frame(turned.copy(), FramePart(size=(20, 30)))
    frame.flags.writeable = False
    np.testing.assert_array_equal(cut_frame(turned, FramePart(size=(20, 30))), expected)


def test_scaling_moves_nothing() -> None:
    rows = np.linspace(10, 240, 96)
    frame = np.repeat(np.repeat(rows[:, None, None], 80, axis=1), 3, axis=2).round().astype(np.uint8)
    smaller = cut_frame(frame, FramePart((0, 0, 96, 80), (24, 20)))[4:-4, 10, 0]
    # The middle of a pixel of the small frame is the middle of four of the large one.
    np.testing.assert_allclose(smaller, rows.reshape(24, 4).mean(axis=1)[4:-4], atol=1)


def test_clips_share_frames_and_keep_their_order_and_repeats() -> None:
    decoded: list[int] = []

    def decode(indices: list[int]) -> Iterator[np.ndarray]:
        for index in indices:
            decoded.append(index)
            yield np.full((4, 6, 3), index, dtype=np.uint8)

    cuts = [Cut(np.array([5, 2, 5])), Cut(np.array([2, 8]), FramePart((1, 1, 2, 3))), Cut(np.array([8]))]
    first, second, third = cut_in_order(cuts, decode, num_frames=10, name="video")
    assert decoded == [2, 5, 8]
    assert first[:, 0, 0, 0].tolist() == [5, 2, 5]
    assert (second[:, 0, 0, 0].tolist(), second.shape) == ([2, 8], (2, 2, 3, 3))
    assert third[:, 0, 0, 0].tolist() == [8]
