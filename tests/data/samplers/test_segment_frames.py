import numpy as np
import pytest

from ssl_video.data.samplers.segment_frames import SegmentFrames
from ssl_video.utils.errors import InputError
from support.segments import segment


def drawn(sampler: SegmentFrames, num_frames: int, draws: int = 300) -> np.ndarray:
    """`[draws * V, T]`."""
    rng = np.random.default_rng(0)
    return np.concatenate([sampler(segment(num_frames), rng).indices for _ in range(draws)])


@pytest.mark.parametrize("num_frames", [8, 17, 48, 300])
def test_one_frame_of_each_part_and_every_frame_of_it(num_frames: int) -> None:
    indices = drawn(SegmentFrames(num_frames=8), num_frames, draws=2000)
    length = num_frames // 8
    assert np.array_equal(indices // length, np.tile(np.arange(8), (2000, 1)))
    for place in range(8):
        assert set(indices[:, place]) == set(range(place * length, (place + 1) * length))


def test_frames_behind_the_last_whole_part_are_never_drawn() -> None:
    assert drawn(SegmentFrames(num_frames=8), 23).max() == 15


@pytest.mark.parametrize("num_frames", [1, 5, 7])
def test_a_video_with_fewer_frames_than_parts_is_its_first_frame(num_frames: int) -> None:
    assert not drawn(SegmentFrames(num_frames=8), num_frames).any()


def test_parts_are_drawn_independently() -> None:
    offsets = drawn(SegmentFrames(num_frames=4), 40, draws=3000) % 10
    correlation = np.corrcoef(offsets.T)
    assert np.abs(correlation - np.eye(4)).max() < 0.08


def test_views_are_drawn_apart() -> None:
    indices = SegmentFrames(num_views=3, num_frames=8)(segment(300), np.random.default_rng(0)).indices
    assert indices.shape == (3, 8)
    assert len({tuple(view) for view in indices.tolist()}) == 3


def test_centre_frames() -> None:
    sampler = SegmentFrames(num_frames=8, centre=True)
    assert drawn(sampler, 48, draws=3).tolist() == [[3, 9, 15, 21, 27, 33, 39, 45]] * 3
    assert drawn(sampler, 100, draws=1).tolist() == [[6, 18, 31, 43, 56, 68, 81, 93]]


def test_dense_frames_lie_a_fixed_distance_apart() -> None:
    indices = drawn(SegmentFrames(num_frames=8, dense=True), 100)
    assert set(np.diff(indices).flatten()) == {8}
    assert (indices[:, 0].min(), indices[:, 0].max()) == (0, 35)


def test_dense_frames_go_on_at_the_first_frame() -> None:
    assert drawn(SegmentFrames(num_frames=8, dense=True), 20, draws=1).tolist() == [[0, 8, 16, 4, 12, 0, 8, 16]]


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="num_frames=0"):
        SegmentFrames()(segment(0), np.random.default_rng(0))
    with pytest.raises(ValueError, match="num_frames=0 must be at least 1"):
        SegmentFrames(num_frames=0)
    with pytest.raises(ValueError, match="dense_span=4"):
        SegmentFrames(num_frames=8, dense_span=4)
    with pytest.raises(ValueError, match="exclude each other"):
        SegmentFrames(centre=True, dense=True)
