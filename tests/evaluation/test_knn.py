import numpy as np
import pytest
import torch

from ssl_video.evaluation.knn import KNN
from support.features import feature_set

LABELS = [0, 1, 2, 3] * 6


def test_planted_clusters_are_all_right() -> None:
    result = KNN(k=5)(feature_set(LABELS), feature_set(LABELS), num_classes=4)
    assert result.metrics == {"top1": 1.0, "top5": 1.0, "balanced_accuracy": 1.0}
    assert result.settings == {"k": 5, "k_asked": 5, "temperature": 0.07, "num_clips": 3}


def test_train_equal_to_test_is_all_right_with_one_neighbour() -> None:
    videos = feature_set(LABELS, noise=10.0)
    assert KNN(k=1)(videos, videos, num_classes=4).metrics["top1"] == 1.0


def test_labels_without_meaning_stay_at_chance() -> None:
    labels = torch.randint(4, (600,)).tolist()
    train, test = feature_set([0] * 600, noise=1.0), feature_set([0] * 600, noise=1.0)
    train.labels, test.labels = torch.tensor(labels), torch.tensor(labels[::-1])
    top1 = KNN()(train, test, num_classes=4).metrics["top1"]
    assert abs(top1 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 600)


def test_k_is_at_most_the_size_of_a_class_and_both_are_recorded() -> None:
    settings = KNN(k=20)(feature_set([0, 1, 1]), feature_set([0]), num_classes=2).settings
    assert (settings["k"], settings["k_asked"]) == (1, 20)


def test_class_without_a_neighbour_is_no_hit_in_the_top_5() -> None:
    result = KNN(k=1)(feature_set([0, 1, 2]), feature_set([0, 3]), num_classes=4)
    assert result.metrics["top5"] == 0.5


def test_per_video_values_average_to_the_metrics() -> None:
    result = KNN(k=3)(feature_set(LABELS, noise=1.0), feature_set(LABELS, noise=1.0), num_classes=4)
    assert set(result.per_video) == {"top1", "top5"}
    for name, values in result.per_video.items():
        assert values.shape == (24,)
        assert float(np.mean(values)) == result.metrics[name]
    assert 0 < result.metrics["top1"] < 1


@pytest.mark.parametrize("settings", [{"k": 0}, {"temperature": 0.0}, {"num_clips": 0}])
def test_faulty_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        KNN(**settings)
