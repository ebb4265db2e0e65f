import numpy as np
import pytest

from ssl_video.data.samplers.base import ClipRequest, check_clip_shape, clip_positions, clip_span


def test_span_counts_first_and_last_frame() -> None:
    assert clip_span(1, 7) == 1
    assert clip_span(8, 9) == 64  # the rho-study's 8x8 at 30 fps
    assert clip_positions(np.array([2, 5]), num_frames=3, frame_stride=2).tolist() == [[2, 4, 6], [5, 7, 9]]


@pytest.mark.parametrize(
    "indices",
    [np.zeros(3, dtype=np.int64), np.zeros((0, 3), dtype=np.int64), np.zeros((1, 3), dtype=np.int32), np.array([[-1]])],
)
def test_request_refuses_faulty_indices(indices: np.ndarray) -> None:
    with pytest.raises(ValueError, match="indices"):
        ClipRequest(indices)


def test_request_refuses_a_box_per_video() -> None:
    indices = np.zeros((2, 3), dtype=np.int64)
    assert ClipRequest(indices, box=np.zeros((2, 4), dtype=np.int64)).within_gaps
    with pytest.raises(ValueError, match="one box per clip"):
        ClipRequest(indices, box=np.zeros((1, 4), dtype=np.int64))


@pytest.mark.parametrize("name", ["num_views", "num_frames", "frame_stride"])
def test_numbers_below_one_are_refused(name: str) -> None:
    numbers = {"num_views": 1, "num_frames": 1, "frame_stride": 1}
    check_clip_shape(**numbers)
    with pytest.raises(ValueError, match=f"{name}=0"):
        check_clip_shape(**(numbers | {name: 0}))
