"""Two results side by side: what stands against comparing them is told, each with both values."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_video.cli.compare import differences, paired_intervals
from ssl_video.cli.main import main
from ssl_video.evaluation.linear_probe import LinearProbe
from ssl_video.metrics.intervals import paired_difference_interval
from support.features import feature_set

Printed = pytest.CaptureFixture[str]


def report(**changes: Any) -> dict[str, Any]:
    base = {
        "protocol": "knn",
        "protocol_version": 1,
        "variant": "default",
        "changed": [],
        "dataset": "folder",
        "label": "label",
        "split": "test",
        "manifest_hash": "a" * 64,
        "videos": 4,
        "missing": 0,
        "undecodable": 0,
        "settings": {"k": 5, "num_clips": 2},
        "metrics": {"top1": 0.5, "top5": 1.0},
    }
    return base | changes


def write(folder: Path, content: dict[str, Any], predictions: Sequence[str | None] | None = None) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(content))
    if predictions is not None:
        columns = {"path": list("abcd"), "label": list("xxyy"), "knn_prediction": predictions}
        pq.write_table(pa.table(columns), folder / "predictions.parquet")
    return folder


def test_equal_results_may_be_compared() -> None:
    assert differences([report(), report(metrics={"top1": 0.7})]) == []
    assert differences([report()]) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"manifest_hash": "b" * 64}, "manifest_hash aaaaaaaaaaaa… against bbbbbbbbbbbb…"),
        ({"split": "val"}, "another split: split test against val"),
        ({"label": "motion"}, "another label column: label label against motion"),
        ({"videos": 3, "undecodable": 1}, "another number of videos: videos 4 against 3"),
        (
            {"protocol_version": 2},
            "knn of result 2: the protocol has changed between them: protocol_version 1 against 2",
        ),
        ({"variant": "svt"}, "variant default against svt"),
        ({"settings": {"k": 20, "num_clips": 2}}, "settings k=5 against k=20"),
        ({"protocol": "retrieval"}, "no protocol in common (knn against retrieval)"),
    ],
)
def test_what_differs_is_told_with_both_values(change: dict[str, Any], told: str) -> None:
    assert any(told in line for line in differences([report(), report(**change)]))


@pytest.mark.parametrize(
    ("protocol", "ours", "theirs"),
    [
        ("linear_probe", {"strength": 0.1, "converged": True}, {"strength": 1.0, "converged": False}),
        ("linear_probe", {"lr": 0.1}, {"lr": 0.3}),
        ("shift", {"strength": 0.1, "left_out": {"mean_relative_drop": "none right"}}, {"strength": 1.0}),
        ("temporal_probes", {"strengths": {"speed": 0.1}}, {"strengths": {"speed": 1.0}}),
    ],
)
def test_what_a_protocol_chose_for_itself_is_no_difference(
    protocol: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assert differences([report(protocol=protocol, settings=own) for own in (ours, theirs)]) == []


def test_what_was_asked_of_a_protocol_is_a_difference() -> None:
    videos = feature_set([0, 0, 1, 1, 0, 0, 1, 1])
    settings = [LinearProbe(strengths=[strength])(videos, videos, num_classes=2).settings for strength in (1e-4, 100.0)]
    assert differences([report(protocol="linear_probe", settings=own) for own in settings]) == [
        "linear_probe of result 2: other settings: settings strengths_asked=[0.0001] against strengths_asked=[100.0]"
    ]
    # Given to one protocol, chosen by another.
    assert differences([report(protocol="low_shot", settings={"strength": own}) for own in (0.1, 1.0)]) != []


def test_another_crop_is_told_by_its_size() -> None:
    def result(size: int) -> dict[str, Any]:
        transform = {"_target_": "ssl_video.data.transforms.resize_center_crop.ResizeCenterCrop", "size": size}
        return report(settings={"k": 5, "input_transform": transform})

    assert differences([result(112), result(112)]) == []
    assert differences([result(112), result(128)]) == [
        "knn of result 2: other settings: settings input_transform.size=112 against input_transform.size=128"
    ]
    assert "input_transform.size=None against" not in differences([result(112), report()])[0]
    assert "input_transform.size=112" in differences([result(112), report()])[0]


def test_protocols_of_scorecards_are_compared_one_by_one() -> None:
    def scorecard(k: int) -> dict[str, Any]:
        return report(protocol="scorecard", results={"knn": report(settings={"k": k})})

    assert differences([scorecard(5), report()]) == [
        "knn of result 2: other settings: settings num_clips=None against num_clips=2"
    ]
    assert any("settings k=5 against k=9" in line for line in differences([scorecard(5), scorecard(9)]))
    assert differences([scorecard(5), scorecard(5) | {"protocol_version": 2}]) == [
        "scorecard of result 2: the protocol has changed between them: protocol_version 1 against 2"
    ]


def test_the_command_prints_both_and_the_interval_of_the_difference(tmp_path: Path, capsys: Printed) -> None:
    first = write(tmp_path / "a", report(), list("xxxx"))
    second = write(tmp_path / "b", report(metrics={"top1": 1.0, "top5": 1.0}), list("xxyy"))
    assert main(["compare", str(first), str(second / "metrics.json")]) == 0
    printed = capsys.readouterr()
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert lines.pop(0) == "Same videos, labels and settings:"
    assert lines[0] == "first second second - first 95 % interval"
    assert lines[1].startswith("knn top1 0.500 1.000 +0.500 +0.000 to +1.000")
    assert lines[2] == "knn top5 1.000 1.000 +0.000"
    assert printed.err == ""


def test_results_that_differ_are_warned_of_and_have_no_interval(tmp_path: Path, capsys: Printed) -> None:
    first = write(tmp_path / "a", report(), list("xxxx"))
    second = write(tmp_path / "b", report(split="val"), list("xxyy"))
    assert main(["compare", str(first), str(second)]) == 0
    printed = capsys.readouterr()
    assert "Warning: result 2: another split: split test against val" in printed.err
    assert printed.out.startswith("Not comparable")
    assert " to " not in printed.out


def test_videos_that_one_could_not_read_are_in_no_interval(tmp_path: Path) -> None:
    first = write(tmp_path / "a", report(), [None, "y", "y", "y"])
    second = write(tmp_path / "b", report(), ["x", "x", "y", None])
    assert paired_intervals(first, second) == {"knn": paired_difference_interval(np.array([1, 1]), np.array([0, 1]))}
    assert paired_intervals(write(tmp_path / "c", report(), [None] * 4), second) == {}


def test_what_is_no_result_is_refused(tmp_path: Path, capsys: Printed) -> None:
    good = write(tmp_path / "a", report())
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "bare.json").write_text(json.dumps({"protocol": "knn", "manifest_hash": "a"}))
    (tmp_path / "card.json").write_text(json.dumps(report(protocol="scorecard", results={"knn": 1})))
    (tmp_path / "broken.json").write_text("{")
    foreign = [(f"{name}.json", "no result of") for name in ("other", "list", "bare", "card")]
    for name, told in [("none", "has no metrics.json"), *foreign, ("broken.json", "is no JSON")]:
        assert main(["compare", str(good), str(tmp_path / name)]) == 2
        assert told in capsys.readouterr().err
