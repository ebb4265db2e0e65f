import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ssl_video.data.samplers.interval_clips import IntervalClips, interval_at
from ssl_video.utils.errors import InputError
from support.segments import segment

M = 220  # 10 s at 25 frames per second, less the (16 - 1) * 2 frames that a clip needs behind its first
# Evenly spaced quantiles: the mean over them is the mean of the distribution, without chance.
QUANTILES = (np.arange(20_000) + 0.5) / 20_000


def intervals(us: np.ndarray, num_starts: int, **settings: Any) -> np.ndarray:
    return np.array([interval_at(float(u), num_starts=num_starts, **settings) for u in us])


def starts_of(sampler: IntervalClips, num_frames: int, *, draws: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([sampler(segment(num_frames), rng).indices[:, 0] for _ in range(draws)])


def test_intervals_follow_the_linear_density() -> None:
    drawn = intervals(np.random.default_rng(0).random(100_000), M)
    j = np.arange(M)
    expected = 2 / M * (1 - (j + 0.5) / M)
    assert expected.sum() == pytest.approx(1)
    counts = np.bincount(drawn, minlength=M)
    assert len(counts) == M
    # The last cells expect fewer than 5 draws; together they expect enough.
    tail = M - 10
    observed = np.append(counts[:tail], counts[tail:].sum())
    shares = np.append(expected[:tail], expected[tail:].sum())
    assert stats.chisquare(observed, shares * 100_000).pvalue > 1e-3
    # The same test sees a uniform interval.
    uniform = np.bincount(intervals(np.random.default_rng(0).random(100_000), M, interval="uniform"), minlength=M)
    assert stats.chisquare(np.append(uniform[:tail], uniform[tail:].sum()), shares * 100_000).pvalue < 1e-9


def test_three_quarters_of_the_intervals_are_below_the_half() -> None:
    assert interval_at(float(np.nextafter(0.75, 0)), num_starts=M) == 109
    assert interval_at(0.75, num_starts=M) == 110


@pytest.mark.parametrize("num_starts", [1, 2, 3, 7, 100, 219, 220])
def test_mean_of_the_floored_interval(num_starts: int) -> None:
    j = np.arange(num_starts)
    exact = (j * 2 / num_starts * (1 - (j + 0.5) / num_starts)).sum()
    assert exact == pytest.approx(num_starts / 3 - 1 / 2 + 1 / (6 * num_starts))
    assert intervals(QUANTILES, num_starts).mean() == pytest.approx(exact, abs=0.02)
    if num_starts == M:
        assert exact == pytest.approx(72.834, abs=1e-3)


@pytest.mark.parametrize("num_starts", [1, 2, 3, 7, 100, 219, 220])
def test_bisection_agrees_with_the_closed_form(num_starts: int) -> None:
    us = np.random.default_rng(num_starts).random(4_000)
    bisected = intervals(us, num_starts, interval="power", exponent=1.0)
    assert (bisected == intervals(us, num_starts)).all()


@pytest.mark.parametrize(
    ("settings", "mean", "median", "below_half"),
    [
        ({"interval": "linear"}, 1 / 3, 0.292893, 0.75),
        ({"interval": "power", "exponent": 1.0}, 1 / 3, 0.292893, 0.75),
        ({"interval": "power", "exponent": 0.5}, 0.3, None, 0.792893),
        ({"interval": "power", "exponent": 2.0}, 0.375, None, 0.6875),
        ({"interval": "uniform"}, 0.5, 0.5, 0.5),
        ({"interval": "increasing"}, 2 / 3, math.sqrt(0.5), 0.25),
    ],
)
def test_moments_of_the_distributions(
    settings: dict[str, Any], mean: float, median: float | None, below_half: float
) -> None:
    shares = intervals(QUANTILES, 10**6, **settings) / 10**6
    assert shares.mean() == pytest.approx(mean, abs=1e-4)
    assert (shares < 0.5).mean() == pytest.approx(below_half, abs=1e-4)
    if median is not None:
        assert np.median(shares) == pytest.approx(median, abs=1e-4)


def test_interval_stays_below_the_number_of_starts() -> None:
    almost_one = float(np.nextafter(1, 0))
    for settings in ({}, {"interval": "uniform"}, {"interval": "increasing"}, {"interval": "power", "exponent": 3.0}):
        for num_starts in (1, 2, 7, 10**6):
            assert interval_at(0.0, num_starts=num_starts, **settings) == 0
            assert 0 <= interval_at(almost_one, num_starts=num_starts, **settings) < num_starts


def test_starts_are_uniform_given_the_interval_and_either_clip_comes_first() -> None:
    starts = starts_of(IntervalClips(num_frames=4, frame_stride=2), 12, draws=20_000)
    num_starts = 12 - 6
    counts = np.zeros((num_starts, num_starts))
    np.add.at(counts, (starts[:, 0], starts[:, 1]), 1)
    # Every ordered pair at distance j: P(j) over (M - j) places, and over two orders unless they are the same pair.
    first, second = np.indices((num_starts, num_starts))
    j = np.abs(first - second)
    expected = 2 / num_starts * (1 - (j + 0.5) / num_starts) / (num_starts - j) / np.where(j == 0, 1, 2)
    assert expected.sum() == pytest.approx(1)
    assert stats.chisquare(counts.ravel(), 20_000 * expected.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("interval", ["linear", "power", "uniform", "increasing"])
def test_clips_lie_inside_whenever_one_fits(interval: Any) -> None:
    sampler = IntervalClips(num_frames=16, frame_stride=2, interval=interval, exponent=2.0)
    assert sampler.min_frames == 31
    rng = np.random.default_rng(0)
    for num_frames in range(31, 60):
        for _ in range(20):
            indices = sampler(segment(num_frames), rng).indices
            assert indices.shape == (2, 16)
            assert (np.diff(indices, axis=1) == 2).all()
            assert indices.min() >= 0
            assert indices.max() <= num_frames - 1


def test_order_of_the_pair_is_random() -> None:
    starts = starts_of(IntervalClips(), 250, draws=4_000)
    different = starts[starts[:, 0] != starts[:, 1]]
    later_first = (different[:, 0] > different[:, 1]).mean()
    assert abs(later_first - 0.5) < 4 * 0.5 / math.sqrt(len(different))


def test_too_short_videos_start_anywhere_and_go_on_at_the_first_frame() -> None:
    sampler = IntervalClips(num_frames=4, frame_stride=2)  # needs 7 frames
    rng = np.random.default_rng(0)
    counts = np.zeros((6, 6))
    for _ in range(3_600):
        indices = sampler(segment(6), rng).indices
        assert (indices == (indices[:, :1] + np.arange(4) * 2) % 6).all()
        counts[tuple(indices[:, 0])] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    assert (sampler(segment(1), rng).indices == 0).all()


def test_too_short_videos_follow_the_other_end_policies() -> None:
    rng = np.random.default_rng(0)
    held = IntervalClips(num_frames=4, frame_stride=2, end_policy="repeat_last")(segment(5), rng)
    assert held.indices.tolist() == [[0, 2, 4, 4]] * 2
    with pytest.raises(InputError, match="5 frames"):
        IntervalClips(num_frames=4, frame_stride=2, end_policy="error")(segment(5), rng)
    with pytest.raises(InputError, match="num_frames=0"):
        IntervalClips()(segment(0), rng)


def test_same_generator_same_clips() -> None:
    sampler = IntervalClips()
    first, second = (sampler(segment(250), np.random.default_rng(7)).indices for _ in range(2))
    assert (first == second).all()
    assert (first != sampler(segment(250), np.random.default_rng(8)).indices).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": "decreasing"}, "interval='decreasing' must be one of linear, power, uniform, increasing"),
        ({"exponent": 0.0}, "exponent=0.0 must be above 0"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"end_policy": "wrap"}, "end_policy='wrap'"),
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntervalClips(**settings)
