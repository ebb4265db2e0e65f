from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ssl_video.data.transforms.corruptions import CORRUPTIONS
from ssl_video.data.transforms.corruptions import SEVERITIES as KNOWN_SEVERITIES
from ssl_video.evaluation.clips import NORMAL, ClipSpec
from ssl_video.evaluation.features import FeatureSet
from ssl_video.evaluation.knn import KNN
from ssl_video.evaluation.linear_probe import LinearProbe
from ssl_video.evaluation.shift import KINDS, SEVERITIES, Shift
from ssl_video.utils.errors import InputError
from support.features import feature_set

LABELS = [0, 1, 2, 3] * 6
NAMES = [f"{kind}_{severity}" for kind in KINDS for severity in SEVERITIES]


def asked(labels: list[int] = LABELS, *, noise: float = 0.1) -> FeatureSet:
    """Test videos that look in every state as they do when they are clean."""
    test = feature_set(labels, prefix="test", noise=noise)
    test.altered = {name: test.features.clone() for name in NAMES}
    return test


def spoil(test: FeatureSet, kind: str, severity: int, *, videos: int) -> None:
    """Gives the first videos the features of another class."""
    test.altered[f"{kind}_{severity}"][:videos] = torch.eye(8)[(test.labels[:videos] + 1) % 4][:, None]  # type: ignore[index]


def test_kinds_and_severities_are_those_that_the_data_set_knows() -> None:
    assert tuple(CORRUPTIONS) == KINDS
    assert KNOWN_SEVERITIES == SEVERITIES


def test_features_that_do_not_change_lose_nothing() -> None:
    result = Shift()(feature_set(LABELS), asked(), num_classes=4)
    assert result.metrics["top1"] == 1.0
    assert result.metrics["mean_relative_drop"] == 0.0
    assert {result.metrics[f"relative_drop_{kind}"] for kind in KINDS} == {0.0}


def test_drops_by_hand() -> None:
    test = asked()
    for severity, videos in zip(SEVERITIES, (0, 6, 12, 18, 24), strict=True):
        spoil(test, "gaussian_blur", severity, videos=videos)
    spoil(test, "frame_rate", 5, videos=12)
    result = Shift()(feature_set(LABELS), test, num_classes=4)
    assert result.metrics["top1_gaussian_blur"] == pytest.approx(0.5)
    assert result.metrics["relative_drop_gaussian_blur"] == pytest.approx(0.5)
    assert result.metrics["relative_drop_frame_rate"] == pytest.approx(0.1)
    assert result.metrics["mean_relative_drop"] == pytest.approx(0.6 / 6)
    rows = {(row["kind"], row["severity"]): row["top1"] for row in result.details["severities"]}
    assert len(rows) == 31
    assert rows["clean", 0] == 1.0
    assert [rows["gaussian_blur", severity] for severity in SEVERITIES] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert rows["frame_rate", 5] == 0.5


def test_drops_are_relative_to_the_clean_accuracy() -> None:
    test = asked()
    test.features[:12] = torch.eye(8)[(test.labels[:12] + 1) % 4][:, None]
    for severity in SEVERITIES:
        spoil(test, "brightness", severity, videos=18)
    metrics = Shift()(feature_set(LABELS), test, num_classes=4).metrics
    assert metrics["top1"] == 0.5
    assert metrics["relative_drop_brightness"] == pytest.approx(0.5)  # a quarter is right, of a half
    assert metrics["relative_drop_frame_drop"] == pytest.approx(-1.0)  # twice as good as clean


def test_where_no_clean_video_is_right_there_is_no_relative_drop() -> None:
    test = asked()
    test.features = torch.eye(8)[(test.labels + 1) % 4][:, None].expand(-1, 3, -1)
    result = Shift()(feature_set(LABELS), test, num_classes=4)
    assert result.metrics["top1"] == 0.0
    assert set(result.metrics) == {"top1", *(f"top1_{kind}" for kind in KINDS)}
    assert "nothing to lose" in result.settings["left_out"]["mean_relative_drop"]


def test_labels_without_meaning_stay_at_chance_in_every_state() -> None:
    train, test = feature_set([0] * 400, noise=1.0), asked([0] * 400, noise=1.0)
    train.labels, test.labels = torch.randint(4, (400,)), torch.randint(4, (400,))
    metrics = Shift()(train, test, num_classes=4).metrics
    assert abs(metrics["top1"] - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


@pytest.mark.parametrize("read_out", ["knn", "linear"])
def test_clean_accuracy_is_that_of_the_protocol(read_out: str) -> None:
    train, test = feature_set(LABELS, noise=0.6), asked(noise=0.6)
    result = Shift(read_out=read_out)(train, test, num_classes=4)  # type: ignore[arg-type]
    protocol = KNN() if read_out == "knn" else LinearProbe()
    expected = protocol(train, test, num_classes=4)
    np.testing.assert_array_equal(result.per_video["top1"], expected.per_video["top1"])
    assert result.predictions is not None
    np.testing.assert_array_equal(result.predictions == test.labels.numpy(), result.per_video["top1"])
    assert result.settings["read_out"] == read_out
    assert 0 < result.metrics["top1"] < 1


def test_per_video_values_average_to_the_metrics() -> None:
    test = asked(noise=0.8)
    spoil(test, "frame_drop", 2, videos=7)
    result = Shift()(feature_set(LABELS, noise=0.8), test, num_classes=4)
    assert set(result.per_video) == {"top1", *(f"top1_{kind}" for kind in KINDS)}
    for name, values in result.per_video.items():
        assert values.shape == (24,)
        assert float(np.mean(values)) == result.metrics[name]


def test_clips_of_test_are_clean_and_each_corruption_at_each_severity() -> None:
    shift = Shift(kinds=["brightness", "frame_rate"], severities=[5, 1], num_clips=2)
    assert shift.clips("train") == {NORMAL: ClipSpec(num_clips=2)}
    assert shift.clips("test") == {
        NORMAL: ClipSpec(num_clips=2),
        "brightness_1": ClipSpec(num_clips=2, corruption="brightness", severity=1),
        "brightness_5": ClipSpec(num_clips=2, corruption="brightness", severity=5),
        "frame_rate_1": ClipSpec(num_clips=2, corruption="frame_rate", severity=1),
        "frame_rate_5": ClipSpec(num_clips=2, corruption="frame_rate", severity=5),
    }


def test_only_the_kinds_asked_for_are_measured() -> None:
    result = Shift(kinds=["frame_rate"], severities=[3])(feature_set(LABELS), asked(), num_classes=4)
    assert set(result.metrics) == {
        *("top1", "top1_frame_rate", "relative_drop_frame_rate", "mean_relative_drop"),
    }
    assert len(result.details["severities"]) == 2


def test_what_is_not_held_out_is_what_the_augmentation_of_presets_draws(repository: Path) -> None:
    """The sentence in the result names these two, and the transform that draws them."""
    drawn = set()
    for file in (repository / "conf/transform").glob("*.yaml"):
        preset = OmegaConf.load(file)
        views = preset.views.values() if "views" in preset else [preset]
        for view in views:
            drawn |= {"gaussian_blur"} if view.get("blur_probability", 0) > 0 else set()
            drawn |= {"brightness"} if view.get("color_jitter", [0])[0] > 0 else set()
    told = Shift()(feature_set(LABELS), asked(), num_classes=4).settings["not_held_out"]
    assert {kind for kind in KINDS if kind in told} == drawn


def test_faulty_features_are_refused() -> None:
    train = feature_set(LABELS)
    with pytest.raises(InputError, match="the test part has no videos"):
        Shift()(train, asked([]), num_classes=4)
    with pytest.raises(InputError, match=r"have no label .first: test_1"):
        Shift()(train, asked([0, -1]), num_classes=4)
    with pytest.raises(InputError, match="one class"):
        Shift()(feature_set([1, 1]), asked([0, 1]), num_classes=2)
    test = asked()
    test.altered["brightness_4"][3, 0, 0] = torch.inf  # type: ignore[index]
    with pytest.raises(InputError, match=r"not finite .first: test_3"):
        Shift()(train, test, num_classes=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": []}, "kinds"),
        ({"kinds": ["fog"]}, r"kinds=\['fog'\] must hold some of gaussian_noise"),
        ({"severities": [0]}, "severities"),
        ({"severities": []}, "severities"),
        ({"num_clips": 0}, "num_clips=0"),
        ({"read_out": "tree"}, "must be one of linear, knn"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shift(**settings)  # type: ignore[arg-type]
