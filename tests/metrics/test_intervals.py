import numpy as np
import pytest

from ssl_video.metrics.intervals import bootstrap_interval


def test_interval_equals_resampling_by_hand_and_the_normal_approximation() -> None:
    values = (np.random.default_rng(3).random(400) < 0.3).astype(float)
    low, high = bootstrap_interval(values)
    rng = np.random.default_rng(1)
    means = [rng.choice(values, size=400).mean() for _ in range(2000)]
    np.testing.assert_allclose((low, high), np.percentile(means, [2.5, 97.5]), atol=0.01)
    half = 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / 400)
    np.testing.assert_allclose((low, high), (values.mean() - half, values.mean() + half), atol=0.01)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_interval_stays_inside_the_range_and_widens_with_confidence() -> None:
    values = np.array([1.0] * 19 + [0.0])
    low, high = bootstrap_interval(values)
    assert 0 <= low < values.mean() < high <= 1
    assert bootstrap_interval(values, confidence=0.5)[0] > low


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [0.0], [0.25]])
def test_equal_values_have_no_spread(values: list[float]) -> None:
    assert bootstrap_interval(np.array(values)) == (values[0], values[0])


@pytest.mark.parametrize("values", [np.zeros(0), np.zeros((2, 2)), np.array([1.0, np.nan])])
def test_faulty_values_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="values of shape"):
        bootstrap_interval(values)
