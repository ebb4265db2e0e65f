import json
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.optim import SGD

from ssl_video.evaluation.clips import NORMAL, ClipSpec
from ssl_video.evaluation.features import FeatureSet
from ssl_video.evaluation.linear_layer import fit_linear_layer, hold_out
from ssl_video.evaluation.linear_probe import LinearProbe
from ssl_video.optim.schedules import Constant
from ssl_video.utils.errors import InputError
from support.features import feature_set

LABELS = [0, 1, 2, 3] * 6


def test_planted_clusters_are_all_right() -> None:
    result = LinearProbe()(feature_set(LABELS), feature_set(LABELS), num_classes=4)
    assert result.metrics == {"top1": 1.0, "top5": 1.0, "balanced_accuracy": 1.0}
    assert result.settings["validation_videos"] == 2
    assert result.settings["converged"]


def oracle_probabilities(train: FeatureSet, test: FeatureSet, *, num_classes: int, strength: float) -> np.ndarray:
    """Minimise mean cross entropy + strength / 2 |W|^2 on standardised clips; average the softmax over clips."""
    num_clips, dim = train.features.shape[1:]
    clips = train.features.double().reshape(-1, dim).numpy()
    mean, std = clips.mean(axis=0), clips.std(axis=0)
    inputs, labels = (clips - mean) / std, np.repeat(train.labels.numpy(), num_clips)

    def softmax(flat: np.ndarray, samples: np.ndarray) -> np.ndarray:
        logits = samples @ flat[: num_classes * dim].reshape(dim, num_classes) + flat[num_classes * dim :]
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def objective(flat: np.ndarray) -> float:
        likelihood = np.log(softmax(flat, inputs)[np.arange(len(labels)), labels]).mean()
        return float(-likelihood + strength / 2 * (flat[: num_classes * dim] ** 2).sum())

    best = minimize(objective, np.zeros(num_classes * (dim + 1)), tol=1e-10).x
    asked = (test.features.double().reshape(-1, dim).numpy() - mean) / std
    return softmax(best, asked).reshape(len(test), num_clips, num_classes).mean(axis=1)


def test_layer_minimises_the_stated_objective() -> None:
    labels = [0, 1, 2] * 8
    train, test = feature_set(labels, dim=3, noise=0.8), feature_set(labels, dim=3, noise=0.8)
    layer = fit_linear_layer(train.features.double().numpy(), train.labels.numpy(), strength=0.1)
    found = layer.probabilities(test.features.double().numpy(), num_classes=3)
    expected = oracle_probabilities(train, test, num_classes=3, strength=0.1)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_same_input_same_result() -> None:
    train, test = feature_set(LABELS, noise=0.7), feature_set(LABELS, noise=0.7)
    results = [LinearProbe()(train, test, num_classes=4) for _ in range(2)]
    assert results[0].metrics == results[1].metrics
    assert results[0].settings == results[1].settings
    for name, values in results[0].per_video.items():
        assert float(np.mean(values)) == results[0].metrics[name]


def test_test_labels_have_no_part_in_the_choice() -> None:
    train, test = feature_set(LABELS, noise=1.0), feature_set(LABELS, noise=1.0)
    chosen = LinearProbe()(train, test, num_classes=4).settings["strength"]
    test.labels = test.labels.flip(0)
    assert LinearProbe()(train, test, num_classes=4).settings["strength"] == chosen


def test_strength_is_chosen_by_the_held_out_videos() -> None:
    # Many features that carry nothing and few videos: a weak penalty fits the noise.
    train = feature_set([0, 1] * 40, dim=60, noise=0.35, num_clips=1)
    probe = LinearProbe(val_fraction=0.5, strengths=(1e-6, 1e-1))
    quality = {}
    held_out = hold_out(train.labels.numpy(), train.groups, fraction=0.5, seed=0)
    features, labels = train.features.double().numpy(), train.labels.numpy()
    for strength in probe.strengths:
        layer = fit_linear_layer(features[~held_out], labels[~held_out], strength=strength)
        scores = layer.probabilities(features[held_out], num_classes=2)
        accuracy = (scores.argmax(axis=1) == labels[held_out]).mean()
        quality[strength] = (accuracy, scores[np.arange(40), labels[held_out]].mean())
    best = max(quality, key=lambda strength: quality[strength])
    assert probe(train, train, num_classes=2).settings["strength"] == best


def test_groups_are_held_out_whole() -> None:
    groups = [f"person_{row // 4}" for row in range(24)]
    held_out = hold_out(np.array(LABELS), groups, fraction=0.1, seed=0)
    names = {name for name, out in zip(groups, held_out, strict=True) if out}
    assert len(names) == 1
    assert held_out.sum() == 4


def test_every_class_keeps_a_video_to_fit_on() -> None:
    labels = np.array([0] * 10 + [1, 2])
    for seed in range(20):
        held_out = hold_out(labels, [None] * 12, fraction=0.5, seed=seed)
        assert set(labels[~held_out]) == {0, 1, 2}
        assert held_out.sum() == 6


def test_nothing_to_spare_takes_the_middle_strength() -> None:
    result = LinearProbe()(feature_set([0, 1, 2]), feature_set([0, 1, 2]), num_classes=3)
    assert result.settings["validation_videos"] == 0
    assert result.settings["strength"] == 1e-2
    assert result.settings["strengths_asked"] == [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert "strengths" not in result.settings
    assert result.metrics["top1"] == 1.0


def test_two_groups_that_each_hold_a_class_are_not_split() -> None:
    result = LinearProbe()(feature_set([0, 0, 1, 1], groups=["a", "a", "b", "b"]), feature_set([0, 1]), num_classes=2)
    assert result.settings["validation_videos"] == 0


def test_class_that_is_not_in_train_is_never_named() -> None:
    result = LinearProbe()(feature_set([0, 2] * 6), feature_set([0, 1, 2]), num_classes=4)
    assert result.per_video["top1"].tolist() == [1.0, 0.0, 1.0]
    assert result.per_video["top5"].tolist() == [1.0, 0.0, 1.0]


def test_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="one class"):
        LinearProbe()(feature_set([0, 0]), feature_set([0]), num_classes=2)


def test_constant_features_do_no_harm() -> None:
    train, test = feature_set(LABELS), feature_set(LABELS)
    for videos in (train, test):
        videos.features = torch.cat([videos.features, torch.full((24, 3, 2), 0.1)], dim=2)
    assert LinearProbe()(train, test, num_classes=4).metrics["top1"] == 1.0


def test_labels_without_meaning_stay_at_chance() -> None:
    train, test = feature_set([0] * 400, noise=1.0), feature_set([0] * 400, noise=1.0)
    train.labels, test.labels = torch.randint(4, (400,)), torch.randint(4, (400,))
    top1 = LinearProbe()(train, test, num_classes=4).metrics["top1"]
    assert abs(top1 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


def test_few_iterations_are_told() -> None:
    result = LinearProbe(max_iterations=1, strengths=[1e-4])(
        feature_set(LABELS, noise=1.0), feature_set(LABELS), num_classes=4
    )
    assert result.settings["converged"] is False


@pytest.mark.slow
def test_moving_shapes_sizes_take_seconds() -> None:
    labels = torch.randint(10, (600,)).tolist()
    train = feature_set(labels, num_clips=5, dim=128, noise=0.5)
    start = time.perf_counter()
    LinearProbe()(train, feature_set(labels[:200], num_clips=5, dim=128, noise=0.5), num_classes=10)
    assert time.perf_counter() - start < 15


def by_sgd(**settings: Any) -> LinearProbe:
    return LinearProbe(**({"solver": "sgd", "lrs": [0.1], "batch_size": 8, "epochs": 30.0} | settings))


def test_planted_clusters_are_all_right_by_sgd() -> None:
    result = by_sgd()(feature_set(LABELS), feature_set(LABELS), num_classes=4)
    assert result.metrics == {"top1": 1.0, "top5": 1.0, "balanced_accuracy": 1.0}
    assert result.predictions is not None
    assert result.predictions.tolist() == LABELS
    assert result.settings["lr"] == 0.1
    assert result.settings["optimizer"] == {"name": "SGD", "momentum": 0.9}


def test_labels_without_meaning_stay_at_chance_by_sgd() -> None:
    train, test = feature_set([0] * 400, noise=1.0), feature_set([0] * 400, noise=1.0)
    train.labels, test.labels = torch.randint(4, (400,)), torch.randint(4, (400,))
    top1 = by_sgd(lrs=[0.01, 0.1])(train, test, num_classes=4).metrics["top1"]
    assert abs(top1 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


def test_both_solvers_agree_on_a_convex_problem() -> None:
    train, test = feature_set(LABELS, noise=0.5, num_clips=1), feature_set(LABELS * 4, noise=0.5, num_clips=1)
    # SGD's weight decay of d is a penalty of d / 2 |W|^2; whole batches leave no noise.
    whole = {
        "batch_size": 24,
        "epochs": 2000.0,
        "lrs": [0.5],
        "optimizer": partial(SGD, momentum=0.9, weight_decay=0.1),
    }
    first, second = (
        probe(train, test, num_classes=4)
        for probe in (LinearProbe(strengths=[0.1]), by_sgd(**whole, scheduler=Constant))
    )
    assert first.metrics == second.metrics
    assert first.predictions is not None
    assert second.predictions is not None
    assert first.predictions.tolist() == second.predictions.tolist()


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_same_seed_same_bytes(solver: str) -> None:
    def told(seed: int) -> str:
        torch.manual_seed(0)
        train, test = feature_set(LABELS, noise=1.0), feature_set(LABELS, noise=1.0)
        torch.manual_seed(torch.seed())
        result = by_sgd(solver=solver, lrs=[0.01, 0.1], epochs=3.0, seed=seed)(train, test, num_classes=4)
        assert result.predictions is not None
        return json.dumps([result.metrics, result.settings, result.predictions.tolist()])

    assert told(0) == told(0)
    assert told(0) != told(1)


def test_learning_rate_ignores_the_test_part() -> None:
    train, test = feature_set(LABELS * 2, noise=1.0), feature_set(LABELS, noise=1.0)
    probe = by_sgd(lrs=[1e-4, 0.01, 1.0], val_fraction=0.25)
    before = probe(train, test, num_classes=4)
    test.labels = test.labels.flip(0)
    after = probe(train, test, num_classes=4)
    assert before.settings == after.settings
    assert before.predictions is not None
    assert after.predictions is not None
    assert before.predictions.tolist() == after.predictions.tolist()


def test_learning_rate_is_chosen_by_the_held_out_videos() -> None:
    train = feature_set(LABELS * 2, noise=0.6)
    probe = by_sgd(lrs=[1e-6, 0.03, 0.1, 1e38], val_fraction=0.25)
    out = torch.from_numpy(hold_out(train.labels.numpy(), train.groups, fraction=0.25, seed=0))
    quality = {}
    for lr in probe.lrs[:3]:
        layer = probe.recipe.fit(train.features[~out], train.labels[~out], lr=lr)
        clips = train.features[out].flatten(0, 1)
        scores = layer.logits(clips).double().softmax(dim=1).unflatten(0, (-1, 3)).mean(dim=1).numpy()
        asked = train.labels[out].numpy()
        quality[lr] = ((scores.argmax(axis=1) == asked).mean(), scores[np.arange(12), asked].mean())
    assert max(quality.values()) > quality[1e-6]
    settings = probe(train, train, num_classes=4).settings
    assert settings["lr"] == max(quality, key=lambda lr: quality[lr])
    assert settings["lrs"] == probe.lrs
    assert settings["validation_videos"] == 12


def test_nothing_to_spare_takes_the_middle_learning_rate() -> None:
    probe = by_sgd(lrs=[0.1, 0.2, 0.3], batch_size=2)
    settings = probe(feature_set([0, 1, 2]), feature_set([0, 1, 2]), num_classes=3).settings
    assert (settings["lr"], settings["validation_videos"]) == (0.2, 0)


def test_nothing_is_held_out_where_there_is_no_choice() -> None:
    for probe in (by_sgd(), LinearProbe(strengths=[0.1])):
        assert probe(feature_set(LABELS), feature_set(LABELS), num_classes=4).settings["validation_videos"] == 0


def test_rates_that_all_diverge_are_refused() -> None:
    with pytest.raises(InputError, match="diverged at a learning rate"):
        by_sgd(lrs=[3e38])(feature_set(LABELS), feature_set(LABELS), num_classes=4)


def test_fewer_videos_than_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match="batch_size=64 is larger than the 24"):
        by_sgd(batch_size=64)(feature_set(LABELS), feature_set(LABELS), num_classes=4)


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize("feature_norm", ["none", "standardise", "l2"])
def test_only_unit_length_takes_out_the_size_of_a_clip(solver: str, feature_norm: str) -> None:
    train, test = feature_set(LABELS, noise=0.3), feature_set(LABELS, noise=0.3)
    probe = by_sgd(solver=solver, feature_norm=feature_norm, average="logits", strengths=[0.1], lrs=[1.0])
    classify = probe._by_lbfgs if solver == "lbfgs" else probe._by_sgd
    layer, _ = classify(train, np.zeros(24, dtype=bool))
    clips = test.features[:, 0].double()
    alike = torch.allclose(layer(clips).softmax(dim=1), layer(9.0 * clips).softmax(dim=1), atol=1e-4)
    assert alike == (feature_norm == "l2")


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize("average", ["probabilities", "logits", "features"])
def test_views_are_averaged_where_it_is_said(solver: str, average: str) -> None:
    train, test = feature_set(LABELS, noise=0.5), feature_set(LABELS, noise=1.5, num_clips=6)
    probe = by_sgd(solver=solver, average=average, feature_norm="l2", strengths=[1e-3], lrs=[1.0])
    result = probe(train, test, num_classes=4)
    classify, _ = (probe._by_lbfgs if solver == "lbfgs" else probe._by_sgd)(train, np.zeros(24, dtype=bool))
    views = np.stack([classify(test.features[:, view]).numpy() for view in range(6)], axis=1)
    powers = np.exp(views)
    scores = {
        "probabilities": (powers / powers.sum(axis=2, keepdims=True)).mean(axis=1),
        "logits": views.mean(axis=1),
        "features": classify(test.features.mean(dim=1)).numpy(),
    }
    assert result.predictions is not None
    assert result.predictions.tolist() == scores[average].argmax(axis=1).tolist()
    assert result.settings["average"] == average


def test_clips_of_train_and_test_may_differ() -> None:
    probe = LinearProbe(num_clips=3, test_clips=10, test_crops="three", num_frames=32)
    assert probe.clips("train") == {NORMAL: ClipSpec(num_clips=3, num_frames=32)}
    assert probe.clips("test") == {NORMAL: ClipSpec(num_clips=10, crops="three", num_frames=32)}
    assert LinearProbe(num_clips=3).clips("test") == {NORMAL: ClipSpec(num_clips=3)}


@pytest.mark.parametrize(
    "settings",
    [
        {"strengths": []},
        {"strengths": [0.0]},
        {"lrs": []},
        {"lrs": [0.0]},
        {"val_fraction": 0.6},
        {"num_clips": 0},
        {"test_clips": 0},
        {"max_iterations": 0},
        {"batch_size": 0},
        {"epochs": 0.0},
        {"solver": "adam"},
        {"feature_norm": "l1"},
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        LinearProbe(**settings)
