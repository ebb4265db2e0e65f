import numpy as np
import pytest

from ssl_video.data.samplers.uniform_clips import UniformClips
from support.segments import segment

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num_frames", [16, 17, 40, 173, 300])
def test_clips_are_those_of_clip_order_prediction(num_frames: int) -> None:
    sampler = UniformClips(num_views=10, num_frames=16, frame_stride=1)
    centres = np.linspace(8, num_frames - 8, 10)
    expected = np.floor(centres - 8 + 1e-9).astype(int)
    assert sampler(segment(num_frames), RNG).indices[:, 0].tolist() == expected.tolist()


def test_first_begins_and_last_ends_with_the_segment() -> None:
    indices = UniformClips(num_views=4, num_frames=8, frame_stride=2)(segment(50), RNG).indices
    assert indices[0, 0] == 0
    assert indices[-1, -1] == 49
    assert np.ptp(np.diff(indices[:, 0])) <= 1


def test_one_clip_lies_in_the_middle() -> None:
    assert UniformClips(num_views=1, num_frames=3, frame_stride=1)(segment(9), RNG).indices.tolist() == [[3, 4, 5]]


def test_nothing_is_random() -> None:
    generator = np.random.default_rng(3)
    before = generator.bit_generator.state
    UniformClips()(segment(50), generator)
    assert generator.bit_generator.state == before


def test_short_videos_repeat_the_last_frame() -> None:
    indices = UniformClips(num_views=2, num_frames=4, frame_stride=1)(segment(2), RNG).indices
    assert indices.tolist() == [[0, 1, 1, 1], [0, 1, 1, 1]]
