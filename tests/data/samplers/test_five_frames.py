"""Five frames that always keep both bounds, from where much moves, the middle one unlike the outer ones."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from ssl_video.data.samplers.five_frames import FiveFrames, mean_squared_differences
from ssl_video.utils.errors import InputError
from support.motion import moving_segment
from support.segments import segment


def assert_keeps_bounds(frames: np.ndarray, sampler: FiveFrames, num_frames: int) -> None:
    a, b, c, d, e = frames
    assert 0 <= a < b < c < d < e < num_frames
    assert d - b <= sampler.tau_max
    assert min(b - a, e - d) >= sampler.tau_min


@pytest.mark.parametrize(("tau_max", "tau_min"), [(60, 15), (16, 4), (2, 1), (5, 12)])
@pytest.mark.parametrize("extra", [0, 1, 2, 7, 200])
@pytest.mark.parametrize("has_table", [True, False])
def test_every_draw_keeps_both_bounds(tau_max: int, tau_min: int, extra: int, has_table: bool) -> None:
    sampler = FiveFrames(tau_max=tau_max, tau_min=tau_min)
    length = sampler.min_frames + extra
    rng = np.random.default_rng(length)
    own = moving_segment(rng.random(length)) if has_table else segment(length)
    for _ in range(60):
        request = sampler(own, rng)
        assert request.indices.shape == (1, 5)
        assert_keeps_bounds(request.indices[0], sampler, length)
        assert ("no_motion_table" in request.flags) is not has_table


def test_the_shortest_video_has_one_tuple() -> None:
    sampler = FiveFrames(tau_max=60, tau_min=15)
    assert sampler.min_frames == 33
    assert sampler(segment(33), np.random.default_rng(0)).indices.tolist() == [[0, 15, 16, 17, 32]]
    with pytest.raises(InputError, match=r"has 32 frames, but the sampler needs 33; .* lower sampler.tau_min"):
        sampler(segment(32), np.random.default_rng(0))


def test_all_tuples_of_a_window_are_equally_likely() -> None:
    sampler = FiveFrames(tau_max=4, tau_min=2)
    length = 10
    allowed = [
        (a, b, c, d, e)
        for a, b, c, d, e in itertools.combinations(range(length), 5)
        if d - b <= 4 and min(b - a, e - d) >= 2
    ]
    drawn = sampler._draw_tuples(length, 20_000, np.random.default_rng(0))
    found = Counter(map(tuple, drawn.tolist()))
    assert set(found) == set(allowed)
    assert stats.chisquare(list(found.values())).pvalue > 1e-3


def test_every_place_of_the_video_is_reached() -> None:
    sampler, rng = FiveFrames(tau_max=4, tau_min=2), np.random.default_rng(0)
    for own in (segment(40), moving_segment(np.ones(40))):
        drawn = np.stack([sampler(own, rng).indices[0] for _ in range(400)])
        assert drawn.min() == 0
        assert drawn.max() == 39


def bursts(length: int = 200) -> np.ndarray:
    """Little motion, but much in a fifth of the time."""
    magnitude = np.full(length, 0.1)
    magnitude[120:160] = 2.0
    return magnitude


def mean_motion(sampler: FiveFrames, magnitude: np.ndarray) -> float:
    """Mean magnitude between the first and the last frame of what is drawn."""
    rng, own = np.random.default_rng(0), moving_segment(magnitude)
    drawn = [sampler(own, rng).indices[0] for _ in range(300)]
    return float(np.mean([magnitude[frames[0] : frames[-1]].mean() for frames in drawn]))


def test_windows_are_drawn_where_much_moves() -> None:
    uniform = mean_motion(FiveFrames(weighting="none"), bursts())
    weighted = mean_motion(FiveFrames(weighting="prob"), bursts())
    top = mean_motion(FiveFrames(weighting="topk", top_share=0.1), bursts())
    assert uniform == pytest.approx(bursts().mean(), rel=0.25)
    assert bursts().mean() * 1.8 < weighted < top
    assert top > 1.5


def test_windows_without_a_table_are_uniform() -> None:
    sampler, rng = FiveFrames(), np.random.default_rng(0)
    drawn = np.stack([sampler(segment(100), rng).indices[0] for _ in range(500)])
    assert drawn.mean() == pytest.approx(49.5, abs=3)


def test_a_still_video_is_drawn_evenly_and_said_to_be_still() -> None:
    request = FiveFrames()(moving_segment(np.zeros(60)), np.random.default_rng(0))
    assert request.flags == ("no_motion",)


def grey_levels(levels: np.ndarray) -> np.ndarray:
    """Thumbnails of one grey level each."""
    return np.broadcast_to(levels.astype(np.uint8)[:, None, None], (len(levels), 64, 64)).copy()


def test_a_middle_frame_like_an_outer_one_is_drawn_again() -> None:
    """Frames alternate between two scenes; c must be of another one than a, and than e."""
    levels = np.where(np.arange(60) % 2 == 0, 50, 200)
    own = moving_segment(np.ones(60), thumbnails=grey_levels(levels))
    rng = np.random.default_rng(0)
    for _ in range(50):
        request = FiveFrames(ssd_min=100.0)(own, rng)
        a, _, c, _, e = request.indices[0]
        assert c % 2 != a % 2
        assert c % 2 != e % 2
        assert request.flags == ()


def test_similarity_is_given_up_and_said_but_never_the_bounds() -> None:
    """All frames look the same, but for a slow drift: the least similar of the draws is taken."""
    levels = 100 + np.arange(60) // 4
    own = moving_segment(np.ones(60), thumbnails=grey_levels(levels))
    sampler, rng = FiveFrames(ssd_min=1e4), np.random.default_rng(0)
    for _ in range(30):
        request = sampler(own, rng)
        assert request.flags == ("frames_too_similar",)
        assert_keeps_bounds(request.indices[0], sampler, 60)
    drift = np.stack([np.diff(levels[sampler(own, rng).indices[0][[0, 2, 4]]]) for _ in range(30)])
    assert drift.min() >= 2


def test_the_percentile_is_that_of_neighbours_in_the_same_window() -> None:
    """Half the video is one still picture: at 5 % nearly nothing is rejected, at 60 % c is not from that half."""
    levels = np.concatenate([np.full(30, 80), 80 + 5 * np.arange(30)])
    own = moving_segment(np.ones(60), thumbnails=grey_levels(levels))

    def too_similar(percentile: float) -> float:
        sampler, rng = (
            FiveFrames(window_frames=60, weighting="none", ssd_percentile=percentile),
            np.random.default_rng(0),
        )
        same = [len({*levels[sampler(own, rng).indices[0][[0, 2]]].tolist()}) == 1 for _ in range(200)]
        return float(np.mean(same))

    assert too_similar(0.0) > 0.2
    assert too_similar(60.0) == 0.0


def test_mean_squared_differences_are_those_of_a_loop() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 9), dtype=np.uint8)
    expected = [[np.mean((x.astype(float) - y) ** 2) for y in images] for x in images]
    assert np.allclose(mean_squared_differences(images), expected, rtol=1e-4, atol=0.1)


def test_equal_generators_give_equal_draws() -> None:
    own = moving_segment(bursts())
    first, second = (FiveFrames()(own, np.random.default_rng(3)).indices for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    "arguments",
    [
        {"tau_max": 1},
        {"tau_min": 0},
        {"window_frames": 10, "tau_min": 4},
        {"ssd_min": -1.0},
        {"ssd_percentile": 101.0},
        {"weighting": "most"},
        {"missing_motion": "guess"},
        {"frame_stride": 0},
    ],
)
def test_faulty_arguments_are_named(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        FiveFrames(**arguments)  # type: ignore[arg-type]
