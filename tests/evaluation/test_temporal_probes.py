import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_video.evaluation.clips import NORMAL, ClipSpec
from ssl_video.evaluation.features import FeatureSet
from ssl_video.evaluation.knn import KNN
from ssl_video.evaluation.linear_probe import LinearProbe
from ssl_video.evaluation.temporal_probes import TemporalProbes
from ssl_video.utils.errors import InputError

LABELS = [0, 1, 2, 3] * 6
STATES = (NORMAL, "frozen", "shuffled", "reversed", "speed_2", "speed_4")
QUESTIONS = ("arrow_of_time", "speed", "order")
DIRECTION = {"frozen": 0.0, "shuffled": 0.0, "reversed": -1.0}
FASTER = {"frozen": 0.0, "speed_2": 2.0, "speed_4": 4.0}


def videos(
    labels: Sequence[int],
    *,
    time: bool = True,
    classes_in_motion: bool = True,
    noise: float = 0.02,
    prefix: str = "train",
) -> FeatureSet:
    """Planted features of 4 clips: a video's own look (3 numbers), its class (4), direction, speed, time in the video.

    Args:
        labels: -1 for none.
        time: whether direction, speed and time are in the features.
        classes_in_motion: whether the class is there only while frames move in their order; otherwise always.
        noise: of everything in every clip, the same in all its states.
        prefix: of the names.
    """
    number = len(labels)
    classes = torch.tensor(list(labels), dtype=torch.int64)
    common = noise * torch.randn(number, 4, 10)
    common[..., :3] += 0.3 * torch.randn(number, 1, 3)

    def in_state(state: str) -> Tensor:
        features = common.clone()
        if not classes_in_motion or state not in ("frozen", "shuffled", "reversed"):
            features[..., 3:7] += torch.eye(4)[classes.clamp(min=0)][:, None]
        if time:
            features[..., 7] += DIRECTION.get(state, 1.0)
            features[..., 8] += FASTER.get(state, 1.0)
            features[..., 9] += torch.linspace(0, 1, 4)
        return features

    return FeatureSet(
        features=in_state(NORMAL),
        labels=classes,
        video_ids=[f"{prefix}_{row}" for row in range(number)],
        groups=[None] * number,
        altered={state: in_state(state) for state in STATES[1:]},
    )


def both(**planted: bool | float) -> tuple[FeatureSet, FeatureSet]:
    return videos(LABELS, **planted), videos(LABELS, prefix="test", **planted)  # type: ignore[arg-type]


def test_features_that_hold_time_answer_every_question() -> None:
    metrics = TemporalProbes(stride_factors=[1, 2, 4])(*both(), num_classes=4).metrics
    assert {name: metrics[name] for name in QUESTIONS} == dict.fromkeys(QUESTIONS, 1.0)
    assert metrics["top1"] == 1.0
    for state in ("frozen", "shuffled", "reversed"):
        assert metrics[f"top1_{state}"] < 0.7
        assert metrics[f"drop_{state}"] == pytest.approx(1 - metrics[f"top1_{state}"])


@pytest.mark.parametrize("read_out", ["linear", "knn"])
def test_features_without_time_are_at_chance_exactly_and_lose_nothing(read_out: str) -> None:
    train, test = both(time=False, classes_in_motion=False)
    for part in (train, test):  # no clip says where it stands in the video
        part.features = part.features[:, :1].expand(-1, 4, -1).contiguous()
        part.altered = dict.fromkeys(STATES[1:], part.features)
    probes = TemporalProbes(stride_factors=[1, 2, 4], read_out=read_out)  # type: ignore[arg-type]
    result = probes(train, test, num_classes=4)
    assert result.metrics["arrow_of_time"] == 0.5
    assert result.metrics["speed"] == pytest.approx(1 / 3)
    assert result.metrics["order"] == 0.5
    assert result.metrics["top1"] == 1.0
    assert [result.metrics[f"drop_{state}"] for state in ("frozen", "shuffled", "reversed")] == [0.0, 0.0, 0.0]
    assert result.settings["chance"] == {"arrow_of_time": 0.5, "speed": 1 / 3, "order": 0.5, "top1": 0.25}


def test_noise_that_differs_by_clip_says_nothing_of_their_order() -> None:
    train, test = both(time=False, classes_in_motion=False, noise=1.0)
    metrics = TemporalProbes()(train, test, num_classes=4).metrics
    # 24 videos, 6 pairs each, both ways round: an answer and its mirror image are one draw.
    assert abs(metrics["order"] - 0.5) < 4 * np.sqrt(0.25 / (24 * 3))
    assert metrics["arrow_of_time"] == 0.5


def noisy(number: int, prefix: str) -> FeatureSet:
    """Direction, speed and time in three of 64 dimensions, under noise that is new in every clip and state."""
    states = {name: torch.randn(number, 4, 64) for name in STATES}
    for name, features in states.items():
        features[..., 0] += 2 * DIRECTION.get(name, 1.0)
        features[..., 1] += 4 * FASTER.get(name, 1.0)
        features[..., 2] += 2 * torch.arange(4)
    names = [f"{prefix}_{row}" for row in range(number)]
    return FeatureSet(states.pop(NORMAL), torch.full((number,), -1), names, [None] * number, states)


def permuted(train: FeatureSet, question: str) -> FeatureSet:
    """What is called forwards, slow or early is so by chance."""
    own = dataclasses.replace(train, features=train.features.clone(), altered=dict(train.altered))
    if question == "order":
        places = torch.rand(len(train), 4).argsort(dim=1)
        own.features = train.features.gather(1, places[..., None].expand_as(train.features))
        return own
    other = {"arrow_of_time": "reversed", "speed": "speed_2"}[question]
    swapped = (torch.rand(len(train)) < 0.5)[:, None, None]
    own.features = torch.where(swapped, train.altered[other], train.features)
    own.altered = {**train.altered, other: torch.where(swapped, train.features, train.altered[other])}
    return own


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_fit_on_permuted_states_is_at_chance(question: str) -> None:
    train, test = noisy(100, "train"), noisy(100, "test")
    assert TemporalProbes()(train, test, num_classes=0).metrics[question] > 0.9
    # A fit without meaning points anywhere, so a little along what is there too.
    assert abs(TemporalProbes()(permuted(train, question), test, num_classes=0).metrics[question] - 0.5) < 0.25


def test_top1_is_that_of_the_protocols_of_these_names() -> None:
    train, test = both(noise=0.8)
    plain = [dataclasses.replace(part, altered={}) for part in (train, test)]
    linear = TemporalProbes()(train, test, num_classes=4).per_video["top1"]
    knn = TemporalProbes(read_out="knn")(train, test, num_classes=4).per_video["top1"]
    np.testing.assert_array_equal(linear, LinearProbe()(*plain, num_classes=4).per_video["top1"])
    np.testing.assert_array_equal(knn, KNN()(*plain, num_classes=4).per_video["top1"])
    assert 0 < linear.mean() < 1


def test_fit_on_the_same_state_reads_what_is_left_there() -> None:
    """In frozen clips the class stands in another dimension, which only a fit on frozen clips can know."""
    train, test = both()
    for part in (train, test):
        part.altered["frozen"][..., 7] += 3 * part.labels[:, None]  # type: ignore[index]
    normal = TemporalProbes()(train, test, num_classes=4)
    same = TemporalProbes(fit_on="same")(train, test, num_classes=4)
    assert same.metrics["top1_frozen"] > 0.9 > normal.metrics["top1_frozen"]
    assert same.metrics["top1"] == normal.metrics["top1"]
    assert same.metrics["drop_frozen"] == pytest.approx(same.metrics["top1"] - same.metrics["top1_frozen"])
    assert set(TemporalProbes().clips("train")) == {NORMAL, "reversed", "speed_2"}
    assert set(TemporalProbes(fit_on="same").clips("train")) == {NORMAL, "frozen", "shuffled", "reversed", "speed_2"}


def test_the_clips_of_test_are_named_by_their_state() -> None:
    clips = TemporalProbes(num_clips=3, stride_factors=[4, 1]).clips("test")
    assert clips == {
        NORMAL: ClipSpec(num_clips=3),
        "frozen": ClipSpec(num_clips=3, order="frozen"),
        "shuffled": ClipSpec(num_clips=3, order="shuffled"),
        "reversed": ClipSpec(num_clips=3, order="reversed"),
        "speed_4": ClipSpec(num_clips=3, stride_factor=4),
    }


def test_per_video_values_average_to_the_metrics_and_drops_are_paired() -> None:
    result = TemporalProbes()(*both(noise=0.8), num_classes=4)
    assert set(result.per_video) == set(result.metrics)
    for name, values in result.per_video.items():
        assert values.shape == (24,)
        assert float(np.mean(values)) == result.metrics[name]
    expected = result.per_video["top1"] - result.per_video["top1_reversed"]
    np.testing.assert_array_equal(result.per_video["drop_reversed"], expected)
    assert set(np.unique(result.per_video["arrow_of_time"] * 8 % 1)) == {0.0}  # eighths: 4 clips in 2 directions


def test_same_input_same_result() -> None:
    train, test = both(noise=0.8)
    results = [TemporalProbes()(train, test, num_classes=4) for _ in range(2)]
    assert results[0].metrics == results[1].metrics
    assert results[0].settings == results[1].settings
    assert results[0].details == results[1].details


def test_details_hold_a_row_for_each_state() -> None:
    result = TemporalProbes()(*both(), num_classes=4)
    rows = result.details["states"]
    assert [row["state"] for row in rows] == [NORMAL, "frozen", "shuffled", "reversed"]
    assert rows[0]["top1"] == result.metrics["top1"]
    assert rows[1]["top1"] == result.metrics["top1_frozen"]
    assert result.details["speed_by_stride_factor"] == {"1": 1.0, "2": 1.0}


def test_without_labels_time_alone_is_asked() -> None:
    train, test = videos([-1] * 12), videos([-1] * 9, prefix="test")
    result = TemporalProbes()(train, test, num_classes=0)
    assert result.metrics == dict.fromkeys(QUESTIONS, 1.0)
    assert result.settings["left_out"]["top1"].endswith("0 classes in train and 0 labelled test videos are not enough")


def test_one_class_leaves_top1_out() -> None:
    result = TemporalProbes()(videos([2] * 12), videos([2] * 9, prefix="test"), num_classes=4)
    assert set(result.metrics) == set(QUESTIONS)
    assert "1 classes in train" in result.settings["left_out"]["top1"]


def test_only_labelled_videos_are_asked_for_their_class() -> None:
    result = TemporalProbes()(videos([*LABELS, -1, -1]), videos([0, 1, -1, 2], prefix="test"), num_classes=4)
    assert result.per_video["top1"].shape == (3,)
    assert result.per_video["order"].shape == (4,)
    assert result.settings["videos"]["top1"] == {"train": 24, "test": 3}


def test_videos_shorter_than_a_clip_are_left_out_of_what_they_would_give_away() -> None:
    train, test = both()
    short = torch.zeros(24, dtype=torch.bool)
    short[:5] = True
    train.too_short = {"speed_2": short}
    test.too_short = {"speed_2": ~short, NORMAL: torch.arange(24) < 2}
    result = TemporalProbes()(train, test, num_classes=4)
    assert result.settings["videos"]["speed"] == {"train": 19, "test": 3}
    assert result.settings["videos"]["arrow_of_time"] == {"train": 24, "test": 22}
    assert result.settings["videos"]["order"] == {"train": 24, "test": 24}
    assert [len(result.per_video[name]) for name in QUESTIONS] == [22, 3, 24]
    test.too_short = {"speed_2": torch.ones(24, dtype=torch.bool)}
    result = TemporalProbes()(train, test, num_classes=4)
    assert "speed" not in result.metrics
    assert result.settings["left_out"]["speed"].startswith("19 train and 0 test videos are as long as a clip")


def test_no_more_videos_are_fitted_on_than_asked_for() -> None:
    train, test = both()
    result = TemporalProbes(max_fit_videos=8)(train, test, num_classes=4)
    assert result.settings["videos"]["order"] == {"train": 8, "test": 24}
    assert result.metrics["arrow_of_time"] == 1.0


def test_result_does_not_depend_on_how_many_videos_are_asked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = both(noise=0.8)
    whole = TemporalProbes()(train, test, num_classes=4)
    monkeypatch.setattr("ssl_video.evaluation.temporal_probes.VIDEOS_AT_A_TIME", 5)
    assert TemporalProbes()(train, test, num_classes=4).metrics == whole.metrics


def not_finite(videos: FeatureSet, state: str) -> FeatureSet:
    videos.altered[state][1, 2, 3] = torch.nan
    return videos


def test_faulty_features_are_refused() -> None:
    train, test = both()
    with pytest.raises(InputError, match="the test part has no videos"):
        TemporalProbes()(train, videos([]), num_classes=4)
    with pytest.raises(InputError, match=r"1 videos of the test part .* not finite .first: test_1"):
        TemporalProbes()(train, not_finite(test, "shuffled"), num_classes=4)
    with pytest.raises(InputError, match=r"nothing can be asked of these videos: top1: .*; order: 1 train and 24 test"):
        TemporalProbes()(videos([0]), videos(LABELS, prefix="test"), num_classes=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_clips": 1}, "num_clips=1 must be at least 2"),
        ({"stride_factors": [1]}, "two or more whole numbers"),
        ({"stride_factors": [2, 4]}, "1 among them"),
        ({"fit_on": "frozen"}, "must be one of normal, same"),
        ({"read_out": "tree"}, "must be one of linear, knn"),
        ({"strengths": []}, "strengths"),
        ({"val_fraction": 0.6}, "val_fraction=0.6"),
        ({"max_iterations": 0}, "max_iterations=0"),
        ({"max_fit_videos": 1}, "max_fit_videos=1"),
        ({"k": 0}, "k=0"),
    ],
)
def test_faulty_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TemporalProbes(**settings)  # type: ignore[arg-type]
