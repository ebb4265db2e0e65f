from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize

from ssl_video.data.readers.base import check_indices, crop_and_resize, read_once_in_order


def test_each_frame_is_decoded_once_and_in_order() -> None:
    decoded: list[int] = []

    def decode(indices: np.ndarray) -> Iterator[np.ndarray]:
        for index in indices:
            decoded.append(int(index))
            yield np.full((4, 6, 3), index, dtype=np.uint8)

    asked = [7, 3, 3, 9, 0, 7]
    frames = read_once_in_order(asked, decode, num_frames=10, name="video", box=None, size=None)
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
    inside = crop_and_resize(frame, box=(5, 8, 5, 8), size=(40, 64))
    np.testing.assert_array_equal(inside, np.full((40, 64, 3), 200))
    np.testing.assert_array_equal(crop_and_resize(frame, box=(4, 7, 3, 5), size=None), frame[4:7, 7:12])


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 0, 21, 4), (0, 27, 4, 4), (0, 0, 0, 4)])
def test_a_box_outside_the_frame_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must lie inside the frame of 20 x 30"):
        crop_and_resize(np.zeros((20, 30, 3), dtype=np.uint8), box=box, size=None)


@pytest.mark.parametrize("size", [(12, 17), (64, 50), (31, 90)])
def test_scaling_is_that_of_torchvision(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    expected = resize(torch.from_numpy(frame).permute(2, 0, 1), list(size), antialias=True).permute(1, 2, 0).numpy()
    scaled = crop_and_resize(frame, box=None, size=size)
    assert np.abs(scaled.astype(int) - expected).max() <= 1
