import numpy as np
import pytest

from ssl_video.evaluation.retrieval import Retrieval
from support.features import feature_set

LABELS = [0, 1, 2, 3] * 6


def test_planted_clusters_are_all_hits() -> None:
    metrics = Retrieval(recall_at=[1, 5])(feature_set(LABELS), feature_set(LABELS), num_classes=4).metrics
    assert metrics == {"recall_at_1": 1.0, "recall_at_5": 1.0, "mean_average_precision": 1.0, "median_rank": 1.0}


def test_k_beyond_the_gallery_asks_all_of_it() -> None:
    gallery = feature_set([0] * 5)
    result = Retrieval()(gallery, feature_set([0, 1]), num_classes=2)
    assert result.metrics["recall_at_50"] == 0.5  # class 1 is not in the gallery at all
    assert result.settings["recall_at"] == [1, 5, 10, 20, 50]
    assert result.settings["gallery_videos"] == 5


def test_gallery_is_train_and_queries_are_test() -> None:
    result = Retrieval(recall_at=[1])(feature_set([0, 0, 1]), feature_set([1, 2]), num_classes=3)
    assert result.per_video["recall_at_1"].tolist() == [1.0, 0.0]
    assert result.metrics["median_rank"] == np.median([1, 4])  # a class that is not in the gallery comes after its end


def test_clips_are_averaged_before_they_are_normalised() -> None:
    train, test = feature_set([0, 1], num_clips=2, noise=0.0), feature_set([0], num_clips=2, noise=0.0)
    # One long clip along class 1 outweighs one short clip along class 0.
    test.features[0, 0, :2] = test.features.new_tensor([1.0, 0.0])
    test.features[0, 1, :2] = test.features.new_tensor([0.0, 3.0])
    assert Retrieval(recall_at=[1])(train, test, num_classes=2).metrics["recall_at_1"] == 0.0


@pytest.mark.parametrize("settings", [{"recall_at": []}, {"recall_at": [0, 1]}, {"num_clips": 0}])
def test_faulty_settings_are_refused(settings: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match="must"):
        Retrieval(**settings)
