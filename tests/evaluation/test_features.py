import pytest
import torch

from ssl_video.evaluation.features import FeatureSet, check_labelled, check_num_clips
from ssl_video.utils.errors import InputError
from support.features import feature_set


def test_video_features_are_the_mean_over_clips() -> None:
    videos = feature_set([0, 1], num_clips=4)
    assert (len(videos), videos.num_clips) == (2, 4)
    torch.testing.assert_close(videos.video_features(), videos.features.double().sum(dim=1) / 4)


def test_parts_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[N, V, D\]"):
        FeatureSet(torch.zeros(2, 3, 4), torch.zeros(2).long(), ["a"], [None, None])


@pytest.mark.parametrize("part", ["train", "test"])
def test_missing_labels_are_refused_with_the_way_out(part: str) -> None:
    whole, gap = feature_set([0, 1]), feature_set([0, -1])
    train, test = (gap, whole) if part == "train" else (whole, gap)
    with pytest.raises(InputError, match=rf"1 of 2 videos of the {part} part .*video_1.*dataset\.labels="):
        check_labelled(train, test, num_classes=2)


def test_empty_parts_are_refused() -> None:
    with pytest.raises(InputError, match="test part has no videos"):
        check_labelled(feature_set([0]), feature_set([]), num_classes=1)


def test_broken_features_are_refused() -> None:
    broken = feature_set([0, 1])
    broken.features[1, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"1 videos of the train part .*video_1"):
        check_labelled(broken, feature_set([0]), num_classes=2)


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_classes=1"):
        check_labelled(feature_set([0, 1]), feature_set([0]), num_classes=1)


def test_number_of_clips_is_checked() -> None:
    with pytest.raises(ValueError, match="num_clips=0"):
        check_num_clips(0)
