import numpy as np
import pytest

from ssl_video.data.samplers.end_policies import apply_end_policy, check_end_policy
from ssl_video.utils.errors import InputError
from support.segments import segment

POSITIONS = np.array([[0, 2, 4, 6]])


def test_repeat_last_holds_the_last_frame() -> None:
    assert apply_end_policy(POSITIONS, segment=segment(4), policy="repeat_last").tolist() == [[0, 2, 3, 3]]


def test_loop_goes_on_at_the_first_frame() -> None:
    assert apply_end_policy(POSITIONS, segment=segment(4), policy="loop").tolist() == [[0, 2, 0, 2]]


def test_error_names_video_frames_and_way_out() -> None:
    with pytest.raises(InputError, match=r"video clip_a has 6 frames.* need 7.*sampler\.num_frames"):
        apply_end_policy(POSITIONS, segment=segment(6), policy="error")


@pytest.mark.parametrize("policy", ["repeat_last", "loop", "error"])
def test_long_enough_segments_are_left_alone(policy: str) -> None:
    assert apply_end_policy(POSITIONS, segment=segment(7), policy=policy) is POSITIONS


@pytest.mark.parametrize("policy", ["repeat_last", "loop", "error"])
def test_empty_segments_are_refused(policy: str) -> None:
    with pytest.raises(InputError, match="num_frames=0"):
        apply_end_policy(POSITIONS, segment=segment(0), policy=policy)


def test_unknown_policies_are_refused() -> None:
    with pytest.raises(ValueError, match="'clamp' must be one of repeat_last, loop, error"):
        check_end_policy("clamp")
