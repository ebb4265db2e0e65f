import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssl_video.evaluation.linear_layer import choose_strength, fit_linear_layer
from support.features import feature_set

LABELS = [0, 1, 2] * 8


@pytest.mark.parametrize("standardise", [True, False])
def test_layer_equals_scikit_learn_on_clips(standardise: bool) -> None:
    train, test = (feature_set(LABELS, noise=0.8).features.double().numpy() for _ in range(2))
    layer = fit_linear_layer(train, np.array(LABELS), strength=0.1, standardise=standardise)
    scaler = StandardScaler(with_mean=standardise, with_std=standardise).fit(train.reshape(-1, 8))
    model = LogisticRegression(C=1 / (0.1 * 72), tol=1e-8, max_iter=2000)
    model.fit(scaler.transform(train.reshape(-1, 8)), np.repeat(LABELS, 3))
    expected = model.predict_proba(scaler.transform(test.reshape(-1, 8))).reshape(24, 3, 3).mean(axis=1)
    np.testing.assert_allclose(layer.probabilities(test, num_classes=3), expected, atol=2e-3)
    assert layer.converged


def test_class_never_seen_is_minus_infinity() -> None:
    features = feature_set([0, 2] * 4).features.double().numpy()
    scores = fit_linear_layer(features, np.array([0, 2] * 4), strength=0.1).probabilities(features, num_classes=4)
    assert np.isneginf(scores[:, [1, 3]]).all()
    np.testing.assert_allclose(scores[:, [0, 2]].sum(axis=1), 1)


def test_features_that_do_not_vary_carry_nothing() -> None:
    features = feature_set(LABELS).features.double().numpy()
    padded = np.concatenate([features, np.full((24, 3, 2), 0.1)], axis=2)
    layers = [fit_linear_layer(each, np.array(LABELS), strength=0.1) for each in (features, padded)]
    plain, wide = (
        layer.probabilities(each, num_classes=3) for layer, each in zip(layers, (features, padded), strict=True)
    )
    np.testing.assert_allclose(plain, wide, atol=1e-3)


def test_too_few_iterations_are_told() -> None:
    features = feature_set(LABELS, noise=1.0).features.double().numpy()
    assert not fit_linear_layer(features, np.array(LABELS), strength=1e-6, max_iterations=1).converged


def test_nothing_held_out_takes_the_middle_strength() -> None:
    features = feature_set(LABELS).features.double().numpy()
    none = np.zeros(24, dtype=bool)
    assert choose_strength(features, np.array(LABELS), none, strengths=[0.1, 0.2, 0.3]) == 0.2
    assert choose_strength(features, np.array(LABELS), ~none, strengths=[0.1]) == 0.1
