"""Branches are drawn alike, each in time order; branches that coincide are noted."""

import numpy as np
import pytest
from scipy import stats

from ssl_video.data.samplers.sub_videos import Scheme, SubVideos, collision_rate
from ssl_video.utils.errors import InputError
from support.segments import segment

SCHEMES: list[Scheme] = ["consecutive", "random", "constrained", "disjoint"]


def draws(sampler: SubVideos, num_frames: int, *, number: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([sampler(segment(num_frames), rng).indices for _ in range(number)])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("num_views", "num_frames", "frame_stride"), [(6, 6, 1), (4, 3, 2), (2, 5, 3)])
@pytest.mark.parametrize("extra", [0, 1, 40])
def test_branches_are_in_time_order_and_inside(
    scheme: Scheme, num_views: int, num_frames: int, frame_stride: int, extra: int
) -> None:
    sampler = SubVideos(num_views=num_views, num_frames=num_frames, frame_stride=frame_stride, scheme=scheme)
    length = sampler.min_frames + extra
    drawn = draws(sampler, length, number=50)
    assert drawn.shape == (50, num_views, num_frames)
    steps = np.diff(drawn, axis=2)
    assert steps.min() >= 1
    if scheme != "random":
        assert (steps == frame_stride).all()
    assert drawn.min() >= 0
    assert drawn.max() < length


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_branch_has_the_same_distribution(scheme: Scheme) -> None:
    """The one that is permuted later can't be told by its frame numbers, nor by its place among the others."""
    sampler = SubVideos(num_views=4, num_frames=3, scheme=scheme)
    firsts = draws(sampler, 20, number=4000)[:, :, 0]
    table = np.stack([np.bincount(firsts[:, view], minlength=20) for view in range(4)])
    assert stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue > 1e-3


def test_consecutive_starts_are_uniform_and_independent() -> None:
    firsts = draws(SubVideos(num_views=2, num_frames=4), 9, number=4000)[:, :, 0]
    table = np.zeros((6, 6))
    np.add.at(table, (firsts[:, 0], firsts[:, 1]), 1)
    assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_constrained_branches_lie_in_one_window() -> None:
    """1.5 x 6 frames at stride 1 have 4 starts: of 6 branches some must coincide."""
    sampler = SubVideos(scheme="constrained")
    assert sampler.min_frames == 9
    drawn = draws(sampler, 60, number=400)
    assert np.ptp(drawn, axis=(1, 2)).max() == 8
    assert all(len({*branches[:, 0].tolist()}) <= 4 for branches in drawn)
    assert all(collision_rate(branches) > 0 for branches in drawn)
    wide = draws(SubVideos(scheme="constrained", frame_stride=2), 60, number=400)
    assert np.ptp(wide, axis=(1, 2)).max() == 17
    assert np.mean([collision_rate(branches) for branches in wide]) == pytest.approx(1 / 8, abs=0.02)


def test_random_branches_are_any_sorted_frames() -> None:
    drawn = draws(SubVideos(num_views=2, num_frames=2, scheme="random"), 4, number=3000)
    found = np.zeros((4, 4))
    np.add.at(found, tuple(drawn.reshape(-1, 2).T), 1)
    assert stats.chisquare(found[np.triu_indices(4, k=1)]).pvalue > 1e-3
    assert found[np.tril_indices(4)].sum() == 0


def test_disjoint_branches_share_no_frame() -> None:
    sampler = SubVideos(scheme="disjoint")
    assert sampler.min_frames == 36
    for branches in draws(sampler, 40, number=200):
        spans = {frame for first in branches[:, 0] for frame in range(first, first + 6)}
        assert len(spans) == 36
    orders = {tuple(np.argsort(branches[:, 0])) for branches in draws(sampler, 40, number=200)}
    assert len(orders) > 100


def test_coinciding_branches_are_noted() -> None:
    rng = np.random.default_rng(0)
    flags = {SubVideos(num_views=2, num_frames=4)(segment(5), rng).flags for _ in range(40)}
    assert flags == {(), ("coinciding_branches",)}


def test_collision_rate_counts_pairs() -> None:
    branches = np.array([[1, 2], [1, 2], [1, 3], [1, 2]])
    assert collision_rate(branches) == pytest.approx(3 / 6)
    assert collision_rate(branches[:1]) == 0
    assert collision_rate(np.arange(8).reshape(4, 2)) == 0


def test_short_videos_and_faulty_arguments_are_refused() -> None:
    with pytest.raises(InputError, match=r"has 5 frames, but the sampler needs 6"):
        SubVideos()(segment(5), np.random.default_rng(0))
    for arguments in ({"scheme": "all"}, {"window_factor": 0.5}, {"num_views": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            SubVideos(**arguments)  # type: ignore[arg-type]
