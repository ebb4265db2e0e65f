"""Candidates are drawn by their motion, and evenly where nothing moves."""

import numpy as np
import pytest
from scipy import stats

from ssl_video.data.samplers.motion_weights import (
    Weighting,
    check_long_enough,
    check_motion_choices,
    draw_by_motion,
    window_means,
)
from ssl_video.utils.errors import InputError
from support.segments import segment


def counts(motion: list[float], *, weighting: Weighting, top_share: float = 0.5, draws: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    drawn = [draw_by_motion(np.array(motion), rng, weighting=weighting, top_share=top_share) for _ in range(draws)]
    return np.bincount(drawn, minlength=len(motion))


def test_prob_draws_in_proportion() -> None:
    found = counts([1, 0, 3, 4], weighting="prob")
    assert found[1] == 0
    assert stats.chisquare(found[[0, 2, 3]], [500, 1500, 2000]).pvalue > 1e-3


def test_topk_draws_evenly_among_those_with_most() -> None:
    found = counts([1, 5, 0, 4], weighting="topk")
    assert found[[0, 2]].sum() == 0
    assert stats.chisquare(found[[1, 3]]).pvalue > 1e-3
    assert counts([1, 5, 0, 4], weighting="topk", top_share=0.01)[1] == 4000


@pytest.mark.parametrize("weighting", ["prob", "topk", "none"])
def test_where_nothing_moves_all_are_equal(weighting: Weighting) -> None:
    assert stats.chisquare(counts([0, 0, 0], weighting=weighting)).pvalue > 1e-3


def test_none_looks_at_no_motion() -> None:
    assert stats.chisquare(counts([1, 100, 0], weighting="none")).pvalue > 1e-3


def test_window_means_are_those_of_a_loop() -> None:
    values = np.random.default_rng(0).random(20).astype(np.float32)
    for length in (1, 7, 20):
        expected = [values[start : start + length].mean() for start in range(20 - length + 1)]
        assert np.allclose(window_means(values, length), expected)


def test_faults_name_the_value() -> None:
    right = {"weighting": "prob", "top_share": 0.5, "missing_motion": "uniform"}
    check_motion_choices(**right)  # type: ignore[arg-type]
    for name, value in (("weighting", "most"), ("top_share", 0.0), ("top_share", 1.1), ("missing_motion", "guess")):
        with pytest.raises(ValueError, match=f"{name}="):
            check_motion_choices(**(right | {name: value}))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"video clip_a has 4 frames, but the sampler needs 5; .* lower it"):
        check_long_enough(segment(4), min_frames=5, way_out="lower it")
