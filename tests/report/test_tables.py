"""The tables say what the results say."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ssl_video.cli.official_splits import combine
from ssl_video.report.contents import Evaluation, Measured, Predictions, Run, measured
from ssl_video.report.tables import (
    ScoreTable,
    class_table,
    confusion,
    protocol_settings,
    result_facts,
    result_notes,
    run_facts,
    score_table,
    software_facts,
)
from ssl_video.report.words import (
    is_share,
    listed,
    metric_title,
    protocol_title,
    setting_text,
    shown,
    shown_interval,
)
from support.reports import made_up_run, protocol_object, scorecard


def group_of(*runs: Run) -> list[Measured]:
    (group,) = measured(runs).values()
    return group


def run_of(name: str, top1: float, *, random: float) -> Run:
    result = protocol_object("knn", {"top1": top1})
    result |= {"baselines": {"random": {"top1": random}}, "baseline_intervals": {"random": {"top1": [0.0, 0.2]}}}
    return Run(name, evaluations=[Evaluation(scorecard({"knn": result}))])


def test_runs_and_their_baselines_stand_side_by_side_with_intervals() -> None:
    table = score_table(("folder", "label"), group_of(run_of("a", 0.5, random=0.1), run_of("b", 0.25, random=0.12)))
    assert table.title == "folder · label"
    assert table.columns == [("a", False), ("b", False), ("random, of a", True), ("random, of b", True)]
    ((title, sentence, (row,)),) = table.sections
    assert (title, row.metric) == ("k nearest neighbours", "top-1 accuracy") and sentence
    assert [(cell.text, cell.interval) for cell in row.cells] == [
        ("50.0 %", "40.0 to 60.0"),
        ("25.0 %", "15.0 to 35.0"),
        ("10.0 %", "0.0 to 20.0"),
        ("12.0 %", "0.0 to 20.0"),
    ]
    assert table.skipped == [f"{name}: shift was left out: not asked for" for name in "ab"]


def test_equal_baselines_share_a_column() -> None:
    table = score_table(("folder", "None"), group_of(run_of("a", 0.5, random=0.1), run_of("b", 0.25, random=0.1)))
    assert table.columns == [("a", False), ("b", False), ("random", True)]
    assert table.title == "folder"


def test_what_a_run_was_not_asked_is_a_dash() -> None:
    probe = Run("b", evaluations=[Evaluation(protocol_object("linear_probe", {"top1": 0.7}))])
    table = score_table(("folder", "label"), group_of(run_of("a", 0.5, random=0.1), probe))
    cells = {title: [cell.text for cell in rows[0].cells] for title, _, rows in table.sections}
    assert cells["k nearest neighbours"][:2] == ["50.0 %", "–"]
    assert cells["Linear probe"][:2] == ["–", "70.0 %"]


def test_a_deviation_over_draws_stands_beside_its_mean() -> None:
    metrics = {"top1_at_5_percent": 0.3, "top1_at_5_percent_std": 0.02, "embedding_std": 0.5}
    run = Run("a", evaluations=[Evaluation(protocol_object("low_shot", metrics))])
    ((_, _, rows),) = score_table(("folder", "label"), group_of(run)).sections
    cells = [(row.metric, row.cells[0].text, row.cells[0].interval, row.cells[0].spread) for row in rows]
    assert cells == [
        ("top-1, 5 % of the labels", "30.0 %", "20.0 to 40.0", "± 2.0 over draws"),
        ("embedding std", "0.5", "0.4 to 0.6", ""),
    ]


def over_splits(name: str, *, note: str | None = None, **others: Any) -> Run:
    """A run's mean over two official splits: 0.4 and 0.6 of few labels, beside random weights' 0.1 and 0.1."""
    metric = "top1_at_5_percent"
    splits = {
        number: protocol_object(
            "low_shot",
            {metric: value, f"{metric}_std": 0.02},
            baselines={"random": {metric: 0.1}},
            baseline_intervals={"random": {metric: [0.0, 0.2]}},
            **others,
        )
        for number, value in (("1", 0.4), ("3", 0.6))
    }
    return Run(name, evaluations=[Evaluation(combine(splits) | ({} if note is None else {"note": note}))])


def test_means_over_official_splits_stand_with_their_deviation_and_without_an_interval() -> None:
    group = group_of(over_splits("a"))
    table = score_table(("folder", "label"), group)
    ((_, _, (row,)),) = table.sections
    assert [(cell.text, cell.interval, cell.over_splits, cell.spread) for cell in row.cells] == [
        # The values lie 0.1 to both sides of their mean: the deviation of a sample of two is 0.1 times √2.
        ("50.0 %", "", "± 14.1 over splits", "± 2.0 over draws"),
        ("10.0 %", "", "± 0.0 over splits", ""),
    ]
    assert "means over the official splits 1 and 3, with the sample standard deviation" in table.beneath
    assert "bootstrap" not in table.beneath
    assert table.without_width(only_headlines=False) is None
    facts = dict(result_facts(group))
    assert facts["official splits"] == ["1 and 3 (counts and times are their sums)"]
    assert facts["videos"] == ["12"]


def test_splits_that_agree_deviate_by_nothing() -> None:
    splits = {name: protocol_object("features", {"rankme": 13.15}) for name in "123"}
    report = combine(splits) | {"metrics_std": {"rankme": 2.2e-15}}
    ((_, _, (row,)),) = score_table(("folder", "label"), group_of(Run("a", evaluations=[Evaluation(report)]))).sections
    assert row.cells[0].over_splits == "± 0 over splits"


def test_means_and_single_splits_side_by_side_are_told_apart() -> None:
    table = score_table(("folder", "label"), group_of(run_of("a", 0.5, random=0.1), over_splits("b")))
    assert (
        "95\u00a0% bootstrap interval over videos beneath; b: means over the official splits 1 and 3" in table.beneath
    )
    alone = score_table(("folder", "label"), group_of(run_of("a", 0.5, random=0.1)))
    assert alone.beneath.endswith("interval over videos beneath.") and "splits" not in alone.beneath


def test_what_an_evaluation_says_of_its_results_is_kept() -> None:
    group = group_of(over_splits("a", note="it has seen those"), over_splits("b"))
    assert result_notes(group) == ["a: it has seen those"]


def test_intervals_without_a_width_are_found_where_they_are_shown() -> None:
    def table_of(**intervals: list[float]) -> ScoreTable:
        metrics = dict.fromkeys(intervals, 1.0)
        result = protocol_object("knn", metrics, intervals=intervals, baselines={}, baseline_intervals={})
        return score_table(("folder", "label"), group_of(Run("a", evaluations=[Evaluation(result)])))

    headline, other, none = (
        table_of(top1=[1.0, 1.0], top5=[0.9, 1.0]),
        table_of(top1=[0.0, 0.1], top5=[1.0, 1.0]),
        table_of(top1=[0.0, 0.001]),
    )
    found = [[table.without_width(only_headlines=only) for only in (True, False)] for table in (headline, other, none)]
    assert found == [["100.0 to 100.0"] * 2, [None, "100.0 to 100.0"], [None, None]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"resize": 128, "crop": {"size": 112, "flip": False}}, "(resize=128, crop=(size=112, flip=false))"),
        ({}, "none"),
        ([1, 0.5, None, {"k": True}], "[1, 0.5, null, (k=true)]"),
        ("centre", "centre"),
    ],
)
def test_settings_in_groups_are_written_out(value: object, text: str) -> None:
    assert setting_text(value) == text
    result = protocol_object("knn", {"top1": 0.5}, settings={"num_clips": 2, "input_transform": value})
    group = group_of(Run("a", evaluations=[Evaluation(result)]))
    assert dict(protocol_settings(group)) == {
        "k nearest neighbours": [f"version 1, num_clips=2, input_transform={text}"]
    }


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("top1", 0.12345, "12.3 %"),
        ("drop_frozen", -0.02, "-2.0 %"),
        ("median_rank", 12.0, "12"),
        ("uniformity", -1.23456, "-1.235"),
        ("rankme", 33.333, "33.33"),
        ("top1_at_1_percent_std", 0.01, "1.0 %"),
        ("top1", None, "–"),
        ("top1", float("nan"), "–"),
    ],
)
def test_shares_are_in_per_cent_and_the_rest_in_its_own_unit(name: str, value: float | None, text: str) -> None:
    assert shown(name, value) == text


def test_words() -> None:
    assert shown_interval("top1", [0.1, 0.25]) == "10.0 to 25.0"
    assert shown_interval("median_rank", (1.0, 2.5)) == "1 to 2.5"
    assert shown_interval("top1", None) == ""
    assert is_share("recall_at_5") and not is_share("effective_rank")
    assert metric_title("recall_at_50") == "recall at 50"
    assert metric_title("top1_at_0_5_percent") == "top-1, 0.5 % of the labels"
    assert metric_title("top1_5_shot") == "top-1, 5 labelled per class"
    assert metric_title("something_new") == "something new"
    assert protocol_title("retrieval (vcop)") == "Retrieval (vcop)"
    assert protocol_title("my_protocol") == "my protocol"
    assert [listed(names) for names in ([], ["1"], ["1", "2"], ["1", "2", "3"])] == ["", "1", "1 and 2", "1, 2 and 3"]


# --- what was run -----------------------------------------------------------------------------------------------------


def test_facts_name_the_training_and_leave_out_what_nobody_has() -> None:
    runs = [made_up_run("a"), Run("b")]
    facts = dict(run_facts(runs))
    assert facts["method"] == ["moco", "–"] and facts["finished"] == ["yes", "–"] and facts["steps"] == ["20", "–"]
    assert "optimizer" not in facts and "training time" not in facts
    assert dict(software_facts(runs)) == {"command": ["train.py method=moco", "–"], "torch": ["2.0", "–"]}


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (150, "2.5 min"), (9000, "2.5 h")])
def test_durations_have_a_unit_that_fits(seconds: float, text: str) -> None:
    run = replace(made_up_run("a"), record={"seconds": seconds})
    assert run_facts([run]) == [("training time", [text])]


def test_the_manifest_hash_and_the_counts_are_told() -> None:
    group = group_of(made_up_run("a"))
    facts = dict(result_facts(group))
    assert facts["manifest hash"] == ["a" * 64] and facts["split asked"] == ["test"]
    assert (facts["videos"], facts["missing"], facts["undecodable"]) == (["6"], ["1"], ["2"])
    assert facts["classes"] == ["3"] and facts["evaluation time"] == ["12 s"]
    assert dict(protocol_settings(group))["k nearest neighbours"] == ["version 1, num_clips=2, classes=3"]


# --- classes ----------------------------------------------------------------------------------------------------------

FOUND = Predictions(
    paths=[f"{number}.mp4" for number in range(7)],
    labels=["walk", "walk", "walk", "run", "run", "jump", None],
    predicted={
        "knn": ["walk", "walk", "run", "run", "walk", "walk", "walk"],
        "linear_probe": ["run", "run", "run", "run", "run", "jump", "run"],
    },
)


def test_classes_are_sorted_by_what_was_right_with_their_counts() -> None:
    table = class_table([Measured("a", 0, {"results": {}}, FOUND, None, 0)])
    assert table is not None
    assert table.columns == ["k nearest neighbours", "Linear probe"]
    assert table.rows == [
        ("walk", 3, [pytest.approx(2 / 3), 0.0]),
        ("run", 2, [0.5, 1.0]),
        ("jump", 1, [0.0, 1.0]),
    ]


def test_confusion_counts_true_against_named_classes() -> None:
    matrix = confusion(Measured("a", 0, {"results": {}}, FOUND, None, 0))
    assert matrix is not None
    assert matrix.protocol == "Linear probe"  # by a fixed order, although kNN may look better
    assert matrix.classes == ["jump", "run", "walk"]
    assert np.array_equal(matrix.counts, [[1, 0, 0], [0, 2, 0], [0, 3, 0]])
    assert matrix.worst == [("walk", "run", 3, 1.0)]


def test_without_predictions_or_labels_there_are_no_class_tables() -> None:
    unlabelled = Predictions(["a.mp4"], [None], predicted={"knn": ["walk"]})
    for predictions in (None, Predictions(["a.mp4"], ["walk"]), unlabelled):
        one = Measured("a", 0, {"results": {}}, predictions, None, 0)
        assert class_table([one]) is None
        assert confusion(one) is None
