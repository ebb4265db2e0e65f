"""The tables say what the results say."""

from dataclasses import replace

import numpy as np
import pytest

from ssl_video.report.contents import Evaluation, Measured, Predictions, Run, measured
from ssl_video.report.tables import (
    class_table,
    confusion,
    protocol_settings,
    result_facts,
    run_facts,
    score_table,
    software_facts,
)
from ssl_video.report.words import is_share, metric_title, protocol_title, shown, shown_interval
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
