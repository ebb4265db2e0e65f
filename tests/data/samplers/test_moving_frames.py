"""Frames with gaps within their limits, from where much moves, and the patch in which most does."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ssl_video.data.samplers.moving_frames import MovingFrames, strongest_patch
from ssl_video.utils.errors import InputError
from support.motion import moving_segment
from support.segments import segment


@pytest.mark.parametrize(("min_gap", "max_gap"), [(1, 1), (3, 8), (5, 15), (2, 100)])
@pytest.mark.parametrize("extra", [0, 1, 5, 60])
@pytest.mark.parametrize("has_table", [True, False])
def test_every_draw_keeps_the_limits(min_gap: int, max_gap: int, extra: int, has_table: bool) -> None:
    sampler = MovingFrames(min_gap=min_gap, max_gap=max_gap)
    length = sampler.min_frames + extra
    rng = np.random.default_rng(length)
    own = moving_segment(rng.random(length)) if has_table else segment(length)
    for _ in range(40):
        request = sampler(own, rng)
        gaps = np.diff(request.indices[0])
        assert request.indices.shape == (1, 4)
        assert gaps.min() >= min_gap
        assert gaps.max() <= max_gap
        assert 0 <= request.indices.min() <= request.indices.max() < length
        assert request.box is not None
        top, left, height, width = request.box[0]
        assert 0 <= top <= 48 - height
        assert 0 <= left <= 64 - width
        assert height == width == round(0.6 * 48)
        assert ("no_motion_table" in request.flags) is not has_table


def test_all_tuples_are_equally_likely() -> None:
    sampler = MovingFrames(num_frames=3, min_gap=2, max_gap=4)
    allowed = [(a, b, c) for a, b, c in itertools.combinations(range(9), 3) if 2 <= b - a <= 4 and 2 <= c - b <= 4]
    found = Counter(map(tuple, sampler._draw_tuples(9, 20_000, np.random.default_rng(0)).tolist()))
    assert set(found) == set(allowed)
    assert stats.chisquare(list(found.values())).pvalue > 1e-3


def test_a_short_video_is_refused() -> None:
    sampler = MovingFrames(min_gap=5)
    assert sampler.min_frames == 16
    with pytest.raises(InputError, match=r"has 15 frames, but the sampler needs 16; .* lower sampler.min_gap"):
        sampler(segment(15), np.random.default_rng(0))


def test_tuples_are_drawn_where_much_moves() -> None:
    magnitude = np.full(200, 0.1)
    magnitude[120:160] = 2.0
    own = moving_segment(magnitude)

    def mean_motion(**choices: object) -> float:
        sampler, rng = MovingFrames(**choices), np.random.default_rng(0)  # type: ignore[arg-type]
        drawn = [sampler(own, rng).indices[0] for _ in range(300)]
        return float(np.mean([magnitude[frames[0] : frames[-1]].mean() for frames in drawn]))

    uniform, weighted, top = (mean_motion(weighting=way) for way in ("none", "prob", "topk"))
    assert uniform == pytest.approx(magnitude.mean(), rel=0.25)
    assert magnitude.mean() * 1.8 < weighted < top


def blob(row: int, column: int, *, length: int = 30, rows: int = 6, columns: int = 8) -> np.ndarray:
    """Motion in one cell, and a little everywhere."""
    grid = np.full((length, rows, columns), 0.05)
    grid[:, row, column] = 5.0
    return grid


@pytest.mark.parametrize(("row", "column"), [(0, 0), (5, 7), (0, 7), (2, 3), (4, 1)])
def test_the_patch_holds_what_moves(row: int, column: int) -> None:
    own = moving_segment(np.ones(30), grid=blob(row, column))  # 48 x 64 pixels in cells of 8
    request = MovingFrames(patch=20)(own, np.random.default_rng(0))
    assert request.box is not None
    top, left, height, width = request.box[0]
    assert (height, width) == (20, 20)
    assert top <= 8 * row
    assert top + 20 >= 8 * row + 8
    assert left <= 8 * column
    assert left + 20 >= 8 * column + 8


def test_the_patch_is_that_of_the_tuples_own_time() -> None:
    """Until frame 15 the left moves, then the right."""
    grid = np.concatenate([blob(2, 1, length=15), blob(2, 6, length=15)])
    own, rng = moving_segment(np.ones(30), grid=grid), np.random.default_rng(0)
    sides = set()
    for _ in range(100):
        request = MovingFrames(patch=16, max_gap=4)(own, rng)
        assert request.box is not None
        first, last = request.indices[0][[0, -1]]
        is_left = bool(request.box[0][1] < 24)
        if last <= 15 or first >= 15:
            assert is_left == (last <= 15)
            sides.add(is_left)
    assert sides == {True, False}


@pytest.mark.parametrize(("height", "width", "rows", "columns", "side"), [(48, 64, 6, 8, 20), (50, 37, 7, 5, 13)])
def test_the_strongest_patch_is_that_of_a_loop_over_pixels(
    height: int, width: int, rows: int, columns: int, side: int
) -> None:
    """Each pixel has the motion of its cell, by its share of the pixel where two cells meet in it."""
    density = np.random.default_rng(rows).random((rows, columns))
    vertical, horizontal = (
        np.array([[max(0.0, min(p + 1, (c + 1) * n / m) - max(p, c * n / m)) for c in range(m)] for p in range(n)])
        for n, m in ((height, rows), (width, columns))
    )
    pixels = vertical @ density @ horizontal.T
    tops = sorted({min(round(r * height / rows), height - side) for r in range(rows)})
    lefts = sorted({min(round(c * width / columns), width - side) for c in range(columns)})
    sums = {(t, x): pixels[t : t + side, x : x + side].sum() for t in tops for x in lefts}
    found = strongest_patch(density, height=height, width=width, side=side)
    assert sums[found] == pytest.approx(max(sums.values()))


def test_where_nothing_moves_or_no_table_is_the_patch_is_in_the_middle() -> None:
    for own, flag in ((moving_segment(np.zeros(30)), "no_motion"), (segment(30), "no_motion_table")):
        request = MovingFrames(patch=20)(own, np.random.default_rng(0))
        assert request.box is not None
        assert request.box.tolist() == [[14, 22, 20, 20]]
        assert request.flags == (flag,)


def test_a_patch_larger_than_the_frame_is_cut_and_said() -> None:
    for own in (segment(30), moving_segment(np.ones(30))):
        request = MovingFrames(patch=100)(own, np.random.default_rng(0))
        assert request.box is not None
        assert request.box[0, 2:].tolist() == [48, 48]
        assert "patch_larger_than_frame" in request.flags


def test_a_share_is_of_the_shorter_side() -> None:
    for height, width in ((240, 320), (320, 240)):
        request = MovingFrames(patch=1.0)(replace(segment(30), height=height, width=width), np.random.default_rng(0))
        assert request.box is not None
        assert request.box[0, 2:].tolist() == [240, 240]


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_frames": 1},
        {"min_gap": 0},
        {"max_gap": 2, "min_gap": 3},
        {"patch": 0},
        {"patch": 1.5},
        {"num_candidates": 0},
        {"weighting": "most"},
    ],
)
def test_faulty_arguments_are_named(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MovingFrames(**arguments)  # type: ignore[arg-type]
