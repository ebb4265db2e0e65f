from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ssl_video.evaluation.clips import ClipSpec
from ssl_video.evaluation.features import FeatureSet
from ssl_video.evaluation.knn import KNN
from ssl_video.utils.errors import InputError
from support.features import feature_set

LABELS = [0, 1, 2, 3] * 6


def asked(labels: list[int], **changes: Any) -> FeatureSet:
    """Videos that are not in the train part."""
    return feature_set(labels, prefix="test", **changes)


@pytest.mark.parametrize("level", ["video", "clip"])
@pytest.mark.parametrize("search", ["exact", "faiss"])
def test_planted_clusters_are_all_right(level: str, search: str) -> None:
    if search == "faiss":
        pytest.importorskip("faiss", reason="needs the faiss extra: pip install 'ssl_video[faiss]'")
    knn = KNN(k=5, level=level, search=search)  # type: ignore[arg-type]
    result = knn(feature_set(LABELS), asked(LABELS), num_classes=4)
    assert result.metrics == {"top1": 1.0, "top5": 1.0, "balanced_accuracy": 1.0}
    assert result.settings == {
        "k": 5,
        "k_asked": 5,
        "temperature": 0.07,
        "num_clips": 3,
        "crops": "centre",
        "level": level,
        "pooling": "mean",
        "search": search,
    }
    assert result.predictions is not None
    assert result.predictions.tolist() == LABELS


def test_neighbours_are_the_nearest_train_videos() -> None:
    train, test = feature_set(LABELS, noise=1.0), asked(LABELS, noise=1.0)
    result = KNN(k=3)(train, test, num_classes=4)
    cosines = torch.nn.functional.cosine_similarity(test.video_features()[:, None], train.video_features()[None], dim=2)
    assert result.neighbours is not None
    assert np.array_equal(result.neighbours, cosines.argsort(dim=1, descending=True)[:, :10].numpy())
    assert KNN(k=3, level="clip")(train, test, num_classes=4).neighbours is None
    few = KNN()(feature_set([0, 1, 1]), asked([0]), num_classes=2).neighbours
    assert few is not None and few.shape == (1, 3)


def test_predictions_equal_scikit_learn() -> None:
    train, test = feature_set(LABELS, noise=1.0), asked(LABELS, noise=1.0)
    theirs = KNeighborsClassifier(4, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    theirs.fit(train.video_features().numpy(), train.labels.numpy())
    result = KNN(k=4)(train, test, num_classes=4)
    expected = theirs.predict(test.video_features().numpy())
    assert np.array_equal(result.predictions, expected)  # type: ignore[arg-type]
    assert result.metrics["top1"] == theirs.score(test.video_features().numpy(), test.labels.numpy())


def test_votes_of_clips_are_averaged_over_the_video() -> None:
    train, test = feature_set(LABELS, noise=1.0), asked(LABELS, noise=1.0, num_clips=2)
    theirs = KNeighborsClassifier(6, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.5))
    theirs.fit(train.features.flatten(0, 1).numpy(), np.repeat(LABELS, 3))
    shares = theirs.predict_proba(test.features.flatten(0, 1).numpy()).reshape(24, 2, 4).mean(axis=1)
    result = KNN(k=6, temperature=0.5, level="clip")(train, test, num_classes=4)
    assert np.array_equal(result.predictions, shares.argmax(axis=1))  # type: ignore[arg-type]
    assert result.per_video["top1"].shape == (24,)


def test_clips_are_capped_by_the_clips_of_a_class() -> None:
    assert KNN(k=99, level="clip")(feature_set(LABELS), asked(LABELS), num_classes=4).settings["k"] == 18


@pytest.mark.parametrize("level", ["video", "clip"])
def test_video_never_votes_for_itself(level: str) -> None:
    """What a user would see who asks the train part: the neighbours, not each video's own label."""
    videos = feature_set([0] * 80, noise=1.0)
    videos.labels = torch.arange(80) % 4
    result = KNN(k=1, level=level)(videos, videos, num_classes=4)  # type: ignore[arg-type]
    assert result.metrics["top1"] < 0.6  # labels without meaning; by themselves all would be right
    if level == "video":
        assert result.neighbours is not None
        assert all(row not in found for row, found in enumerate(result.neighbours.tolist()))
    # Under other names the same features are other videos, and all find themselves.
    renamed = FeatureSet(videos.features, videos.labels, [f"copy_{row}" for row in range(80)], videos.groups)
    assert KNN(k=1, level=level)(videos, renamed, num_classes=4).metrics["top1"] == 1.0  # type: ignore[arg-type]


def test_all_but_itself_may_vote() -> None:
    videos = feature_set(LABELS)
    assert KNN(k=99, cap_at_class_size=False)(videos, videos, num_classes=4).settings["k"] == 23


def test_clips_are_those_asked_for() -> None:
    assert KNN(num_clips=7, pooling="conv5_max").clips("test") == {"normal": ClipSpec(7, pooling="conv5_max")}


def test_labels_without_meaning_stay_at_chance() -> None:
    labels = torch.randint(4, (600,)).tolist()
    train, test = feature_set([0] * 600, noise=1.0), asked([0] * 600, noise=1.0)
    train.labels, test.labels = torch.tensor(labels), torch.tensor(labels[::-1])
    top1 = KNN()(train, test, num_classes=4).metrics["top1"]
    assert abs(top1 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 600)


def test_k_is_at_most_the_size_of_a_class_and_both_are_recorded() -> None:
    settings = KNN(k=20)(feature_set([0, 1, 1]), asked([0]), num_classes=2).settings
    assert (settings["k"], settings["k_asked"]) == (1, 20)


def test_class_without_a_neighbour_is_no_hit_in_the_top_5() -> None:
    result = KNN(k=1)(feature_set([0, 1, 2]), asked([0, 3]), num_classes=4)
    assert result.metrics["top5"] == 0.5


def test_per_video_values_average_to_the_metrics() -> None:
    result = KNN(k=3)(feature_set(LABELS, noise=1.0), asked(LABELS, noise=1.0), num_classes=4)
    assert set(result.per_video) == {"top1", "top5"}
    for name, values in result.per_video.items():
        assert values.shape == (24,)
        assert float(np.mean(values)) == result.metrics[name]
    assert 0 < result.metrics["top1"] < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k=0 must be"),
        ({"temperature": 0.0}, "temperature=0.0 must be"),
        ({"num_clips": 0}, "num_clips=0 must be"),
        ({"level": "frame"}, "level=frame must be one of video, clip"),
        ({"pooling": "max"}, "pooling=max must be one of mean, conv5_max"),
        ({"search": "near"}, "search=near must be one of exact, faiss"),
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KNN(**settings)


def not_finite(labels: list[int]) -> FeatureSet:
    videos = feature_set(labels)
    videos.features[1, 0, 0] = torch.nan
    return videos


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (feature_set([0, 1]), asked([]), "the test part has no videos"),
        (feature_set([]), asked([0]), "the train part has no videos"),
        (feature_set([0, 0]), asked([0]), "all 2 train videos have one class"),
        (feature_set([0, -1]), asked([0]), "1 of 2 videos of the train part have no label"),
        (not_finite([0, 1]), asked([0]), "not finite .first: video_1"),
        (feature_set([0, 1]), not_finite([0, 1]), "of the test part have features that are not finite"),
    ],
)
def test_bad_input_is_refused(train: FeatureSet, test: FeatureSet, message: str) -> None:
    with pytest.raises(InputError, match=message):
        KNN()(train, test, num_classes=2)


def test_train_part_of_the_asked_video_alone_is_refused() -> None:
    videos = feature_set([0, 1])
    videos.video_ids = ["same", "same"]
    with pytest.raises(InputError, match="no video besides the test video"):
        KNN()(videos, videos, num_classes=2)


def test_missing_faiss_is_told_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_video.evaluation.neighbours.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install faiss-cpu .*evaluation\.search=exact"):
        KNN(search="faiss")
    KNN()
