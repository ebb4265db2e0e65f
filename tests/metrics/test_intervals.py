import time

import numpy as np
import pytest
from sklearn.metrics import recall_score
from sklearn.utils import resample

from ssl_video.metrics.intervals import balanced_accuracy_interval, bootstrap_interval, paired_difference_interval


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


def test_interval_equals_resampling_with_scikit_learn() -> None:
    values = np.random.default_rng(5).exponential(size=300)
    means = [resample(values, random_state=seed).mean() for seed in range(2000)]
    np.testing.assert_allclose(bootstrap_interval(values), np.percentile(means, [2.5, 97.5]), atol=0.02)


# --- balanced accuracy ------------------------------------------------------------------------------------------------


def uneven(sizes: tuple[int, ...] = (300, 60, 15), *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(seed)
    hits = (rng.random(len(labels)) < np.array([0.9, 0.6, 0.4])[labels]).astype(float)
    order = rng.permutation(len(labels))
    return hits[order], labels[order]


def test_balanced_interval_equals_stratified_resampling_with_scikit_learn() -> None:
    hits, labels = uneven()
    scores = []
    for seed in range(400):
        drawn = resample(np.arange(len(labels)), stratify=labels, random_state=seed)
        predictions = np.where(hits[drawn] == 1, labels[drawn], labels[drawn] + 1)
        scores.append(recall_score(labels[drawn], predictions, labels=[0, 1, 2], average="macro"))
    low, high = balanced_accuracy_interval(hits, labels)
    np.testing.assert_allclose((low, high), np.percentile(scores, [2.5, 97.5]), atol=0.02)
    # The small class decides the width, which the interval of the plain accuracy knows nothing of.
    plain = bootstrap_interval(hits)
    assert high - low > 2 * (plain[1] - plain[0])


def test_balanced_interval_of_one_class_is_that_of_the_mean() -> None:
    hits = uneven()[0]
    assert balanced_accuracy_interval(hits, np.zeros(len(hits))) == bootstrap_interval(hits)


def test_classes_without_spread_keep_their_share() -> None:
    hits, labels = np.array([1.0, 1.0, 0.0, 0.0, 1.0]), np.array([0, 0, 1, 2, 2])
    low, high = balanced_accuracy_interval(hits, labels)
    assert (low, high) == ((1 + 0 + 0) / 3, (1 + 0 + 1) / 3)
    assert balanced_accuracy_interval(np.ones(4), np.array([0, 1, 2, 3])) == (1.0, 1.0)


def test_balanced_interval_contains_its_metric_and_repeats() -> None:
    hits, labels = uneven(seed=3)
    metric = np.mean([hits[labels == label].mean() for label in range(3)])
    low, high = balanced_accuracy_interval(hits, labels)
    assert low < metric < high
    assert balanced_accuracy_interval(hits, labels) == (low, high)


# --- differences ------------------------------------------------------------------------------------------------------


def test_paired_interval_is_narrower_where_the_same_videos_are_hard() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.random(500)
    ours, theirs = ((difficulty < share).astype(float) for share in (0.55, 0.5))
    low, high = paired_difference_interval(ours, theirs)
    assert 0 < low < ours.mean() - theirs.mean() < high
    half = 1.96 * np.sqrt((ours - theirs).var() / 500)
    np.testing.assert_allclose(((high - low) / 2), half, atol=0.005)
    separate = [bootstrap_interval(values) for values in (ours, theirs)]
    assert separate[0][0] < separate[1][1]  # side by side they overlap
    assert paired_difference_interval(theirs, ours) == pytest.approx((-high, -low), abs=0.003)


def test_difference_to_oneself_is_nothing() -> None:
    values = np.random.default_rng(0).random(20)
    assert paired_difference_interval(values, values) == (0.0, 0.0)


def test_difference_of_equals_contains_nothing() -> None:
    rng = np.random.default_rng(1)
    low, high = paired_difference_interval(*((rng.random(400) < 0.5).astype(float) for _ in range(2)))
    assert low < 0 < high


def test_faulty_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hits \(3,\) and labels \(2,\)"):
        balanced_accuracy_interval(np.ones(3), np.zeros(2))
    with pytest.raises(ValueError, match="hits of shape"):
        balanced_accuracy_interval(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="same videos"):
        paired_difference_interval(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="theirs of shape"):
        paired_difference_interval(np.ones(1), np.array([np.nan]))


@pytest.mark.slow
def test_twenty_thousand_videos_take_seconds() -> None:
    rng = np.random.default_rng(0)
    hits, labels = (rng.random(20_000) < 0.3).astype(float), rng.integers(0, 400, size=20_000)
    start = time.perf_counter()
    bootstrap_interval(hits)
    balanced_accuracy_interval(hits, labels)
    assert time.perf_counter() - start < 20
