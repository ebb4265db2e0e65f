from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ssl_video.data.samplers.interval_clips import IntervalClips
from ssl_video.data.samplers.keyframes import snapped
from ssl_video.data.samplers.random_clips import RandomClips
from support.segments import segment

KEYFRAMES = np.array([0, 16, 32, 48, 64], dtype=np.int32)
WITH_KEYFRAMES = replace(segment(80), keyframes=KEYFRAMES)


def starts(sampler: Any, number: int = 300, **changes: Any) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([sampler(replace(WITH_KEYFRAMES, **changes), rng).indices[:, 0] for _ in range(number)])


def test_starts_go_back_to_the_keyframe_before_them() -> None:
    moved = snapped(np.array([[0, 15, 16], [31, 70, 64]]), segment=WITH_KEYFRAMES, snap="keyframe")
    assert moved.tolist() == [[0, 0, 16], [16, 64, 64]]


def test_a_start_before_the_first_keyframe_stays() -> None:
    """A stretch that is cut out of a file begins anywhere."""
    cut = replace(WITH_KEYFRAMES, keyframes=np.array([10, 26], dtype=np.int32))
    assert snapped(np.array([3, 12]), segment=cut, snap="keyframe").tolist() == [3, 10]


@pytest.mark.parametrize("keyframes", [None, np.array([], dtype=np.int32)])
def test_without_keyframes_nothing_moves(keyframes: np.ndarray | None) -> None:
    bare = replace(WITH_KEYFRAMES, keyframes=keyframes)
    assert snapped(np.array([3, 12]), segment=bare, snap="keyframe").tolist() == [3, 12]


@pytest.mark.parametrize("sampler", [RandomClips, IntervalClips])
def test_off_by_default(sampler: Any) -> None:
    drawn = starts(sampler(num_frames=8, frame_stride=2))
    assert (drawn % 16 != 0).any()
    assert np.array_equal(drawn, starts(sampler(num_frames=8, frame_stride=2), keyframes=None))


@pytest.mark.parametrize("sampler", [RandomClips, IntervalClips])
def test_every_clip_begins_with_a_keyframe(sampler: Any) -> None:
    drawn = starts(sampler(num_frames=8, frame_stride=2, snap="keyframe"))
    assert set(drawn.flatten().tolist()) <= set(KEYFRAMES.tolist())
    assert drawn.max() == 64


def test_a_keyframe_is_as_likely_as_the_starts_behind_it() -> None:
    """The last start of 15 frames in 80 is 65: the keyframe at 64 stands for two starts, the others for 16."""
    drawn = Counter(starts(RandomClips(num_frames=8, frame_stride=2, snap="keyframe"), 3000).flatten().tolist())
    expected = {0: 16 / 66, 16: 16 / 66, 32: 16 / 66, 48: 16 / 66, 64: 2 / 66}
    for place, share in expected.items():
        assert drawn[place] / 6000 == pytest.approx(share, abs=0.02)


def test_limits_on_gaps_are_tested_where_the_clips_end_up() -> None:
    sampler = RandomClips(num_frames=8, frame_stride=1, min_gap_frames=9, snap="keyframe")
    drawn = np.sort(starts(sampler), axis=1)
    assert (np.diff(drawn, axis=1) >= 8 + 9).all()


@pytest.mark.parametrize("sampler", [RandomClips, IntervalClips])
def test_unknown_keyframes_are_told(sampler: Any) -> None:
    rng = np.random.default_rng(0)
    own = sampler(num_frames=8, frame_stride=2, snap="keyframe")
    assert own(replace(WITH_KEYFRAMES, keyframes=None), rng).flags == ("no_keyframes",)
    assert own(WITH_KEYFRAMES, rng).flags == ()


@pytest.mark.parametrize("sampler", [RandomClips, IntervalClips])
def test_another_word_is_refused(sampler: Any) -> None:
    with pytest.raises(ValueError, match=r"snap='start' must be keyframe"):
        sampler(snap="start")
