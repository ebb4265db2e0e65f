from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from ssl_video.evaluation.clips import ClipSpec
from ssl_video.evaluation.features import FeatureSet
from ssl_video.evaluation.low_shot import LowShot, draw_per_class
from ssl_video.utils.errors import InputError
from support.features import feature_set

LABELS = [0, 1, 2, 3] * 10


def asked(labels: list[int] = LABELS, **changes: Any) -> FeatureSet:
    return feature_set(labels, prefix="test", **changes)


@pytest.mark.parametrize("read_out", ["linear", "knn"])
def test_planted_clusters_are_all_right_from_one_label(read_out: str) -> None:
    low_shot = LowShot(read_out=read_out, fractions=[0.01, 0.005, 0.2], shots=[1, 5], draws=2)  # type: ignore[arg-type]
    result = low_shot(feature_set(LABELS), asked(), num_classes=4)
    names = ["top1_at_0_5_percent", "top1_at_1_percent", "top1_at_20_percent", "top1_1_shot", "top1_5_shot"]
    assert result.metrics == dict.fromkeys(names, 1.0) | {f"{name}_std": 0.0 for name in names}
    assert result.details["top1_at_20_percent"]["labelled_videos_per_class"] == [2, 2, 2, 2]
    assert result.details["top1_at_1_percent"]["labelled_videos_per_class"] == [1, 1, 1, 1]
    assert result.details["top1_5_shot"]["labelled_videos"] == 20
    assert result.details["top1_5_shot"]["converged"] is True


@pytest.mark.parametrize("read_out", ["linear", "knn"])
def test_labels_without_meaning_stay_at_chance(read_out: str) -> None:
    train, test = feature_set([0] * 400, noise=1.0), asked([0] * 400, noise=1.0)
    train.labels, test.labels = torch.arange(400) % 4, torch.randint(4, (400,))
    low_shot = LowShot(read_out=read_out, fractions=[0.1], shots=[5], draws=3)  # type: ignore[arg-type]
    metrics = low_shot(train, test, num_classes=4).metrics
    for name in ("top1_at_10_percent", "top1_5_shot"):
        assert abs(metrics[name] - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


def test_more_labels_help() -> None:
    train, test = feature_set(LABELS * 3, noise=0.7), asked(LABELS * 3, noise=0.7)
    metrics = LowShot(fractions=[], shots=[1, 30])(train, test, num_classes=4).metrics
    assert metrics["top1_30_shot"] > metrics["top1_1_shot"] + 0.1
    assert metrics["top1_30_shot_std"] == 0  # every draw is the whole class


def test_linear_read_out_equals_scikit_learn_on_the_same_draws() -> None:
    train, test = feature_set(LABELS, noise=0.8), asked(noise=0.8)
    result = LowShot(fractions=[], shots=[3], draws=4, strength=0.05, seed=7)(train, test, num_classes=4)
    accuracies, hits = [], []
    for draw in range(4):
        rows = draw_per_class(train.labels.numpy(), np.full(4, 3), seed=7 + draw)
        clips = train.features[rows].double().flatten(0, 1).numpy()
        mean, std = clips.mean(axis=0), clips.std(axis=0)
        model = LogisticRegression(C=1 / (0.05 * len(clips)), tol=1e-8, max_iter=2000)
        model.fit((clips - mean) / std, np.repeat(train.labels.numpy()[rows], 3))
        shares = model.predict_proba((test.features.double().flatten(0, 1).numpy() - mean) / std)
        hits.append(shares.reshape(40, 3, 4).mean(axis=1).argmax(axis=1) == test.labels.numpy())
        accuracies.append(hits[-1].mean())
    assert result.details["top1_3_shot"]["draws"] == pytest.approx(accuracies)
    assert result.metrics["top1_3_shot"] == pytest.approx(np.mean(accuracies))
    assert result.metrics["top1_3_shot_std"] == pytest.approx(np.std(accuracies, ddof=1))
    np.testing.assert_allclose(result.per_video["top1_3_shot"], np.mean(hits, axis=0))
    assert result.metrics["top1_3_shot_std"] > 0


def test_knn_read_out_equals_scikit_learn_on_the_same_draws() -> None:
    train, test = feature_set(LABELS, noise=1.0), asked(noise=1.0)
    result = LowShot(read_out="knn", fractions=[0.5], shots=[], draws=2, temperature=0.1)(train, test, num_classes=4)
    accuracies = []
    for draw in range(2):
        rows = draw_per_class(train.labels.numpy(), np.full(4, 5), seed=draw)
        theirs = KNeighborsClassifier(5, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1))
        theirs.fit(train.video_features()[rows].numpy(), train.labels.numpy()[rows])
        accuracies.append(theirs.score(test.video_features().numpy(), test.labels.numpy()))
    assert result.details["top1_at_50_percent"]["draws"] == accuracies
    assert result.settings["k_asked"] == 20
    assert "strength" not in result.settings


def test_same_input_same_result_and_another_seed_another() -> None:
    train, test = feature_set(LABELS, noise=1.0), asked(noise=1.0)
    first, again = (LowShot(shots=[1, 5])(train, test, num_classes=4) for _ in range(2))
    assert first.metrics == again.metrics
    assert first.details == again.details
    assert first.metrics != LowShot(shots=[1, 5], seed=10)(train, test, num_classes=4).metrics
    for name, values in first.per_video.items():
        assert float(np.mean(values)) == first.metrics[name]


def test_one_draw_has_no_deviation() -> None:
    result = LowShot(fractions=[], shots=[2], draws=1)(feature_set(LABELS), asked(), num_classes=4)
    assert set(result.metrics) == {"top1_2_shot"}


# --- draws ------------------------------------------------------------------------------------------------------------


def test_draws_take_what_is_asked_of_each_class_and_are_nested() -> None:
    labels = np.array([0] * 30 + [1] * 7 + [2] * 3)
    few, many = (draw_per_class(labels, np.array(counts), seed=1) for counts in ([2, 1, 1], [20, 6, 2]))
    assert np.bincount(labels[few]).tolist() == [2, 1, 1]
    assert np.bincount(labels[many]).tolist() == [20, 6, 2]
    assert set(few) < set(many)
    assert few.tolist() == sorted(set(few.tolist()))
    assert draw_per_class(labels, np.array([2, 1, 1]), seed=2).tolist() != few.tolist()


def test_every_video_is_drawn_as_often() -> None:
    labels = np.array([0] * 10 + [1] * 5)
    drawn = np.concatenate([draw_per_class(labels, np.array([2, 1]), seed=seed) for seed in range(3000)])
    counts = np.bincount(drawn, minlength=15)
    # Each has the chance 1/5; five deviations of a binomial.
    assert np.abs(counts - 600).max() < 5 * np.sqrt(3000 * 0.2 * 0.8)


def test_shares_of_uneven_classes_are_rounded_and_at_least_one() -> None:
    train = feature_set([0] * 30 + [1] * 25 + [2] * 4)
    details = LowShot(fractions=[0.1], shots=[], draws=1)(train, asked([0, 1, 2]), num_classes=3).details
    assert details["top1_at_10_percent"]["labelled_videos_per_class"] == [3, 3, 1]


# --- lists ------------------------------------------------------------------------------------------------------------


def written(folder: Path, name: str, lines: list[str]) -> str:
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


def test_published_list_is_taken_as_it_is(tmp_path: Path) -> None:
    train, test = feature_set(LABELS), asked()
    train.paths = [f"class_{label}/v_{row:02d}.avi" for row, label in enumerate(LABELS)]
    chosen = [0, 1, 2, 5, 8]
    file = written(tmp_path, "videossl 5%.txt", [f"{train.paths[row]}*{LABELS[row]}" for row in chosen])
    result = LowShot(fractions=[], shots=[], label_lists=[file])(train, test, num_classes=4)
    # Class 3 has no label in the list: always missed, as none of the list's predictions can name it.
    assert result.metrics == {"top1_list_videossl_5_": 0.75}
    assert result.details["top1_list_videossl_5_"]["labelled_videos_per_class"] == [2, 2, 1, 0]
    assert result.settings["label_lists"] == ["videossl 5%.txt"]  # no absolute path in a result


def test_list_stands_beside_the_draws_and_names_are_compared_where_paths_are_unknown(tmp_path: Path) -> None:
    file = written(tmp_path, "mine.txt", [f"video_{row}" for row in range(8)])
    result = LowShot(fractions=[], shots=[1], label_lists=[file])(feature_set(LABELS), asked(), num_classes=4)
    assert result.metrics["top1_list_mine"] == 1.0
    assert set(result.per_video) == {"top1_1_shot", "top1_list_mine"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["video_0", "video_99", "test_1"],
            r"mine\.txt names 2 of 3 videos that are no labelled, readable train videos",
        ),
        (["video_0", "video_4"], r"all 2 videos of mine\.txt have one class"),
    ],
)
def test_list_that_does_not_fit_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    low_shot = LowShot(label_lists=[written(tmp_path, "mine.txt", lines)])
    with pytest.raises(InputError, match=message):
        low_shot(feature_set(LABELS), asked(), num_classes=4)


def test_missing_list_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"evaluation\.label_lists=.*absent\.txt is not a file"):
        LowShot(label_lists=[str(tmp_path / "absent.txt")])


def test_lists_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [written(tmp_path / folder, "list.txt", ["video_0"]) for folder in (".", "other")]
    with pytest.raises(ValueError, match="must have different names"):
        LowShot(label_lists=files)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "num_classes", "message"),
    [
        (feature_set([0, 1, 3] * 10), 4, r"1 of 4 classes have none of the 30 train videos \(first: class number 2\)"),
        (feature_set([0, 1]), 4, r"2 of 4 classes have none of the 2 train videos"),
        (feature_set([0, 0]), 1, "all 2 train videos have one class"),
        (feature_set([]), 2, "the train part has no videos"),
    ],
)
def test_bad_input_is_refused(train: FeatureSet, num_classes: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LowShot()(train, asked([0]), num_classes=num_classes)


def test_shots_that_no_class_can_give_are_left_out_and_told() -> None:
    train = feature_set([0] * 12 + [1] * 6 + [2] * 4)
    result = LowShot(fractions=[0.5], shots=[1, 10])(train, asked([0, 1, 2]), num_classes=3)
    assert result.settings["shots_left_out"] == [10]
    assert {"top1_1_shot", "top1_at_50_percent"} <= set(result.metrics)
    assert "top1_10_shot" not in result.metrics
    message = (
        r"shots=10 is more than 2 of 3 classes have: the smallest, class number 2, has 4 train videos; "
        r"give evaluation\.shots=\[1\]"
    )
    with pytest.raises(InputError, match=message):
        LowShot(fractions=[], shots=[1, 10])(train, asked([0, 1, 2]), num_classes=3)


def test_features_that_are_not_finite_are_refused() -> None:
    train = feature_set(LABELS)
    train.features[3] = torch.inf
    with pytest.raises(InputError, match="not finite"):
        LowShot()(train, asked(), num_classes=4)


@pytest.mark.parametrize(
    "settings",
    [
        {"read_out": "tree"},
        {"fractions": [], "shots": []},
        {"fractions": [0.0]},
        {"fractions": [10]},
        {"shots": [0]},
        {"draws": 0},
        {"strength": 0.0},
        {"temperature": 0.0},
        {"k": 0},
        {"num_clips": 0},
        {"max_iterations": 0},
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        LowShot(**settings)


def test_clips_are_those_asked_for() -> None:
    assert LowShot(num_clips=3).clips("train") == {"normal": ClipSpec(3)}
