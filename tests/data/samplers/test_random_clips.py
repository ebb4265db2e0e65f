from collections import Counter

import numpy as np
import pytest
from scipy import stats

from ssl_video.data.samplers.random_clips import RandomClips
from ssl_video.utils.errors import InputError
from support.segments import segment


def starts_of(sampler: RandomClips, num_frames: int, *, draws: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([sampler(segment(num_frames), rng).indices[:, 0] for _ in range(draws)])


def test_every_start_is_reached_equally_often_the_last_included() -> None:
    sampler = RandomClips(num_views=2, num_frames=4, frame_stride=2)
    starts = starts_of(sampler, 12, draws=3000)
    for view in range(2):
        counts = Counter(starts[:, view].tolist())
        assert sorted(counts) == list(range(12 - 7 + 1))
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_views_are_independent_of_each_other() -> None:
    starts = starts_of(RandomClips(num_frames=4, frame_stride=2), 12, draws=3000)
    table = np.zeros((6, 6))
    np.add.at(table, (starts[:, 0], starts[:, 1]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_frames_are_a_stride_apart_and_inside() -> None:
    sampler = RandomClips(num_views=3, num_frames=5, frame_stride=3)
    indices = sampler(segment(40), np.random.default_rng(1)).indices
    assert indices.shape == (3, 5)
    assert (np.diff(indices, axis=1) == 3).all()
    assert indices.min() >= 0
    assert indices.max() < 40
    assert sampler.min_frames == 13


def test_gaps_of_the_sorted_clips_stay_within_the_limits() -> None:
    sampler = RandomClips(num_views=2, num_frames=4, frame_stride=1, min_gap_frames=2, max_gap_frames=5)
    rng = np.random.default_rng(0)
    gaps = set()
    for _ in range(500):
        request = sampler(segment(30), rng)
        assert request.within_gaps
        first, second = sorted(request.indices.tolist())
        gaps.add(second[0] - first[-1] - 1)
    assert gaps == {2, 3, 4, 5}


def test_order_of_the_views_is_random_with_and_without_limits() -> None:
    for sampler in (RandomClips(num_frames=2), RandomClips(num_frames=2, min_gap_frames=1)):
        starts = starts_of(sampler, 60, draws=1000)
        different = starts[starts[:, 0] != starts[:, 1]]
        later_first = (different[:, 0] > different[:, 1]).mean()
        assert abs(later_first - 0.5) < 4 * 0.5 / np.sqrt(len(different))


def test_limits_that_cannot_be_met_give_the_closest_draw_and_say_so() -> None:
    sampler = RandomClips(num_views=2, num_frames=4, frame_stride=1, min_gap_frames=10)
    request = sampler(segment(9), np.random.default_rng(0))
    assert not request.within_gaps
    # Starts 0 .. 5: the widest gap there is, 5 - 0 - 4 = 1 frame, comes closest to the 10 asked.
    assert sorted(request.indices[:, 0].tolist()) == [0, 5]


def test_same_generator_same_clips() -> None:
    sampler = RandomClips()
    first, second = (sampler(segment(90), np.random.default_rng(7)).indices for _ in range(2))
    assert (first == second).all()
    assert (first != sampler(segment(90), np.random.default_rng(8)).indices).any()


def test_short_videos_follow_the_end_policy() -> None:
    rng = np.random.default_rng(0)
    short = segment(3)
    assert RandomClips(num_views=1, num_frames=4, frame_stride=1)(short, rng).indices.tolist() == [[0, 1, 2, 2]]
    looped = RandomClips(num_views=1, num_frames=4, frame_stride=1, end_policy="loop")(short, rng)
    assert looped.indices.tolist() == [[0, 1, 2, 0]]
    with pytest.raises(InputError, match="3 frames"):
        RandomClips(num_views=1, num_frames=4, frame_stride=1, end_policy="error")(short, rng)


def test_crossed_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="min_gap_frames=5 must not exceed max_gap_frames=4"):
        RandomClips(min_gap_frames=5, max_gap_frames=4)
