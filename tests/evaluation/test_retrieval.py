from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from ssl_video.evaluation.clips import ClipSpec
from ssl_video.evaluation.features import FeatureSet
from ssl_video.evaluation.retrieval import Retrieval
from ssl_video.utils.errors import InputError
from support.features import feature_set

LABELS = [0, 1, 2, 3] * 6


def asked(labels: list[int], **changes: Any) -> FeatureSet:
    """Videos that are not in the train part."""
    return feature_set(labels, prefix="test", **changes)


@pytest.mark.parametrize("level", ["video", "clip"])
def test_planted_clusters_are_all_hits(level: str) -> None:
    retrieval = Retrieval(recall_at=[1, 5], level=level)  # type: ignore[arg-type]
    metrics = retrieval(feature_set(LABELS), asked(LABELS), num_classes=4).metrics
    assert metrics == {"recall_at_1": 1.0, "recall_at_5": 1.0, "mean_average_precision": 1.0, "median_rank": 1.0}


def test_k_beyond_the_gallery_asks_all_of_it() -> None:
    result = Retrieval()(feature_set([0] * 4 + [1]), asked([0, 2]), num_classes=3)
    assert result.metrics["recall_at_50"] == 0.5  # class 2 is not in the gallery at all
    assert result.settings == {
        "recall_at": [1, 5, 10, 20, 50],
        "gallery_videos": 5,
        "num_clips": 3,
        "crops": "centre",
        "level": "video",
        "pooling": "mean",
        "search": "exact",
    }


def test_gallery_is_train_and_queries_are_test() -> None:
    result = Retrieval(recall_at=[1])(feature_set([0, 0, 1]), asked([1, 2]), num_classes=3)
    assert result.per_video["recall_at_1"].tolist() == [1.0, 0.0]
    assert result.metrics["median_rank"] == np.median([1, 4])  # a class that is not in the gallery comes after its end
    assert result.neighbours is not None and result.neighbours.shape == (2, 3)
    assert result.neighbours[0, 0] == 2
    assert result.predictions is None


def test_clips_are_averaged_before_they_are_normalised() -> None:
    train, test = feature_set([0, 1], num_clips=2, noise=0.0), asked([0], num_clips=2, noise=0.0)
    # One long clip along class 1 outweighs one short clip along class 0.
    test.features[0, 0, :2] = test.features.new_tensor([1.0, 0.0])
    test.features[0, 1, :2] = test.features.new_tensor([0.0, 3.0])
    assert Retrieval(recall_at=[1])(train, test, num_classes=2).metrics["recall_at_1"] == 0.0
    # Clip by clip, one of the two finds its class.
    result = Retrieval(recall_at=[1], level="clip")(train, test, num_classes=2)
    assert result.per_video["recall_at_1"].tolist() == [0.5]
    assert result.neighbours is None


def test_every_clip_asks_the_clips_of_other_videos() -> None:
    """Leave one video out: its own clips, the nearest by far, count for nothing."""
    videos = feature_set(LABELS, noise=1.0, num_clips=2)
    videos.features[:, 1] = videos.features[:, 0]  # both clips of a video are the same
    result = Retrieval(recall_at=[1], level="clip")(videos, videos, num_classes=4)
    features, labels, owner = videos.features.flatten(0, 1), np.repeat(LABELS, 2), np.arange(48) // 2
    cosines = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=2).numpy()
    precisions, nearest = np.zeros(48), np.zeros(48)
    for row in range(48):
        others = owner != owner[row]
        hits = labels[others] == labels[row]
        precisions[row] = average_precision_score(hits, cosines[row][others])
        nearest[row] = hits[np.argmax(cosines[row][others])]
    # Tied twins share their place in scikit-learn, here they stand one behind the other.
    np.testing.assert_allclose(result.per_video["mean_average_precision"], precisions.reshape(24, 2).mean(1), atol=0.05)
    np.testing.assert_array_equal(result.per_video["recall_at_1"], nearest.reshape(24, 2).mean(1))
    assert result.metrics["recall_at_1"] < 1
    assert result.metrics["recall_at_1"] == nearest.mean()


def test_video_never_finds_itself() -> None:
    """What a user would see who asks the train part."""
    videos = feature_set([0] * 80, noise=1.0)
    videos.labels = torch.arange(80) % 4
    result = Retrieval(recall_at=[1])(videos, videos, num_classes=4)
    assert result.metrics["recall_at_1"] < 0.6  # labels without meaning; by themselves all would be hits
    assert result.neighbours is not None
    assert all(row not in found for row, found in enumerate(result.neighbours.tolist()))
    renamed = FeatureSet(videos.features, videos.labels, [f"copy_{row}" for row in range(80)], videos.groups)
    assert Retrieval(recall_at=[1])(videos, renamed, num_classes=4).metrics["recall_at_1"] == 1.0


def test_class_of_the_asked_video_alone_is_a_miss_at_any_k() -> None:
    videos = feature_set([0, 1, 1, 1])
    assert Retrieval(recall_at=[50])(videos, videos, num_classes=2).per_video["recall_at_50"].tolist() == [0, 1, 1, 1]


def test_no_test_video_is_dropped() -> None:
    test = asked([0, 1] * 18 + [0])  # 37: a last batch of any usual size would be incomplete
    for values in Retrieval()(feature_set(LABELS), test, num_classes=4).per_video.values():
        assert values.shape == (37,)


def test_faiss_reports_the_same_recall_and_nothing_that_needs_the_whole_ranking() -> None:
    pytest.importorskip("faiss", reason="needs the faiss extra: pip install 'ssl_video[faiss]'")
    train, test = feature_set(LABELS, noise=1.0), asked([*LABELS, 4], noise=1.0)
    exact = Retrieval(recall_at=[1, 3, 12])(train, test, num_classes=5)
    found = Retrieval(recall_at=[1, 3, 12], search="faiss")(train, test, num_classes=5)
    assert set(found.metrics) == {"recall_at_1", "recall_at_3", "recall_at_12"}
    assert found.metrics == {name: exact.metrics[name] for name in found.metrics}
    assert np.array_equal(found.neighbours, exact.neighbours)  # type: ignore[arg-type]
    assert found.settings["search"] == "faiss"


def test_clips_are_those_asked_for() -> None:
    assert Retrieval(pooling="conv5_max").clips("train") == {"normal": ClipSpec(10, pooling="conv5_max")}


@pytest.mark.parametrize("settings", [{"recall_at": []}, {"recall_at": [0, 1]}, {"num_clips": 0}, {"level": "frame"}])
def test_faulty_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Retrieval(**settings)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (feature_set([0, 1]), asked([]), "the test part has no videos"),
        (feature_set([0, 0]), asked([0]), "all 2 train videos have one class"),
        (feature_set([0, 1]), asked([-1]), "1 of 1 videos of the test part have no label"),
    ],
)
def test_bad_input_is_refused(train: FeatureSet, test: FeatureSet, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Retrieval()(train, test, num_classes=2)


def test_missing_faiss_is_told_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_video.evaluation.neighbours.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the faiss library"):
        Retrieval(search="faiss")
