"""The map of features: planted clusters stay together, chance stays chance, and the same input gives the same map."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ssl_video.report.feature_map import map_features


def clusters(*, per_class: int = 30, spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = 5 * rng.standard_normal((4, 16))
    labels = np.repeat(np.arange(4), per_class)
    return centres[labels] + spread * rng.standard_normal((len(labels), 16)), labels


def neighbours_agree(places: np.ndarray, labels: np.ndarray) -> float:
    """Share of points whose five nearest others on the map name their label."""
    shuffled = np.random.default_rng(1).permutation(len(labels))
    half = len(labels) // 2
    fitted = KNeighborsClassifier(5).fit(places[shuffled[:half]], labels[shuffled[:half]])
    return float(fitted.score(places[shuffled[half:]], labels[shuffled[half:]]))


def test_planted_clusters_stay_apart_and_drawn_labels_do_not_form_any() -> None:
    features, labels = clusters(spread=0.5)
    points = map_features(features)
    assert points is not None and points.method.startswith("PCA to 16 dimensions, then t-SNE")
    assert neighbours_agree(points.places, labels) > 0.95
    chance = np.random.default_rng(2).permutation(labels)
    assert neighbours_agree(points.places, chance) < 0.5


def test_the_same_features_give_the_same_map() -> None:
    features, _ = clusters(spread=2.0)
    first, second = map_features(features), map_features(features.copy())
    assert first is not None and second is not None
    assert np.array_equal(first.places, second.places)


def test_too_many_videos_are_drawn_from_once_each() -> None:
    features, _ = clusters(spread=1.0)
    drawn = [map_features(features, max_points=40, seed=seed) for seed in (0, 0, 1)]
    assert all(points is not None and len(points.places) == 40 for points in drawn)
    rows = [points.rows.tolist() for points in drawn if points is not None]
    assert rows[0] == rows[1] != rows[2]
    assert rows[0] == sorted(set(rows[0]))


def test_videos_without_finite_features_are_left_out() -> None:
    features, _ = clusters(spread=1.0)
    features[[3, 7]] = np.nan
    points = map_features(features)
    assert points is not None
    assert set(range(len(features))) - set(points.rows.tolist()) == {3, 7}
    assert map_features(np.full((10, 4), np.nan)) is None


@pytest.mark.parametrize("shape", [(2, 5), (3, 5), (5, 1), (40, 1), (9, 200)])
def test_few_videos_and_few_dimensions_have_a_map_too(shape: tuple[int, int]) -> None:
    points = map_features(np.random.default_rng(0).standard_normal(shape))
    if shape[0] < 3:
        assert points is None
        return
    assert points is not None and points.places.shape == (shape[0], 2)
    assert np.isfinite(points.places).all()


def test_equal_features_have_a_map_too() -> None:
    points = map_features(np.ones((40, 8)))
    assert points is not None and np.isfinite(points.places).all()
