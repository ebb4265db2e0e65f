"""The figures of the protocols show the numbers of the results, with chance and baselines."""

from typing import Any

import pytest

from ssl_video.cli.official_splits import combine
from ssl_video.report import figures
from ssl_video.report.contents import Evaluation, Measured, Run, measured
from ssl_video.report.protocol_figures import protocol_figures
from ssl_video.report.tables import score_table
from support.reports import protocol_object

TEMPORAL = {
    "top1": 0.5,
    "top1_frozen": 0.2,
    "top1_shuffled": 0.3,
    "top1_reversed": 0.4,
    "speed": 0.75,
    "drop_frozen": 0.3,
}


def group_of(*results: dict[str, Any]) -> list[Measured]:
    runs = [Run(f"run {number}", evaluations=[Evaluation(result)]) for number, result in enumerate(results)]
    (group,) = measured(runs).values()
    return group


def drawn(*results: dict[str, Any]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """The plain figures of each section, by its name."""
    return {
        name: [(caption, figures.as_json(figure)) for caption, figure in plots]
        for name, _, _, plots in protocol_figures(group_of(*results))
    }


def test_results_without_such_protocols_have_no_such_sections() -> None:
    assert drawn(protocol_object("knn", {"top1": 0.5})) == {}


def test_bars_of_every_state_with_chance_and_the_random_row() -> None:
    settings = {"chance": {"top1": 0.125, "speed": 0.5}, "left_out": {"order": "videos are too short"}}
    result = protocol_object("temporal_probes", TEMPORAL, settings=settings)
    found = drawn(result)
    (_, states), (_, questions) = found["temporal_probes"]
    assert states["layout"]["xaxis"]["ticktext"] == ["as they are", "one frame held", "shuffled", "backwards"]
    run, random, _ = states["data"]
    assert (run["name"], run["y"]) == ("run 0", [0.5, 0.2, 0.3, 0.4])
    assert (random["name"], random["y"]) == ("random", [0.25, 0.1, 0.15, 0.2])
    assert run["error_y"]["array"] == pytest.approx([0.1] * 4)
    assert [shape["y0"] for shape in states["layout"]["shapes"]] == [0.125] * 4
    assert questions["layout"]["xaxis"]["ticktext"] == ["how fast?"]
    assert [shape["y0"] for shape in questions["layout"]["shapes"]] == [0.5]
    table = score_table(("folder", "label"), group_of(result))
    rows = {row.metric: row for _, _, rows in table.sections for row in rows}
    assert "speed: at which was it shown? (chance 50.0 %)" in rows
    assert table.has_more and rows["lost with the middle frame held"].is_headline
    assert table.skipped == [
        "run 0, Use of time: order: which of two clips is first? was left out: videos are too short"
    ]


def test_means_over_official_splits_have_their_deviation_for_an_interval() -> None:
    splits = {
        str(number): protocol_object("temporal_probes", {"speed": value}) for number, value in enumerate((0.4, 0.6))
    }
    ((_, figure),) = drawn(combine(splits))["temporal_probes"]
    run, random = figure["data"]
    assert run["y"] == [0.5] and run["error_y"]["array"] == run["error_y"]["arrayminus"] == pytest.approx([0.02**0.5])
    assert random["y"] == [0.25] and random["error_y"]["array"] == pytest.approx([0.005**0.5])


def test_the_questions_about_time_stand_level_and_are_short_enough_for_half_a_page() -> None:
    result = protocol_object("temporal_probes", {"arrow_of_time": 0.5, "speed": 0.6, "order": 0.7})
    ((_, figure),) = drawn(result)["temporal_probes"]
    axis = figure["layout"]["xaxis"]
    assert axis["ticktext"] == ["forwards?", "how fast?", "which first?"]
    assert axis["tickangle"] == 0


def test_without_labels_only_the_questions_about_time_are_drawn() -> None:
    found = drawn(protocol_object("temporal_probes", {"arrow_of_time": 0.5, "order": 0.6}, settings={}))
    ((caption, figure),) = found["temporal_probes"]
    assert caption == "Time itself, from the features"
    assert "shapes" not in figure["layout"]


def test_few_labels_by_share_and_by_number_in_order() -> None:
    metrics = {
        "top1_at_10_percent": 0.4,
        "top1_at_10_percent_std": 0.03,
        "top1_at_0_5_percent": 0.2,
        "top1_5_shot": 0.3,
        "top1_list_published": 0.9,
    }
    shares, shots = (figure for _, figure in drawn(protocol_object("low_shot", metrics))["low_shot"])
    run, random = shares["data"]
    assert (run["x"], run["y"], run["error_y"]["array"]) == ([0.5, 10.0], [0.2, 0.4], [0.0, 0.03])
    assert random["y"] == [0.1, 0.2]
    assert (shots["data"][0]["x"], shots["data"][0]["y"]) == ([5.0], [0.3])
    assert shares["layout"]["xaxis"]["type"] == "log"


def severities(**accuracies: list[float]) -> dict[str, Any]:
    rows = [{"kind": "clean", "severity": 0, "top1": 0.9}]
    rows += [
        {"kind": kind, "severity": severity, "top1": value}
        for kind, values in accuracies.items()
        for severity, value in enumerate(values, start=1)
    ]
    return {"severities": rows}


def test_a_curve_per_corruption_that_begins_with_clean_clips() -> None:
    result = protocol_object(
        "shift",
        {"top1": 0.9},
        details=severities(frame_drop=[0.8, 0.7], gaussian_blur=[0.6, 0.5]),
        baseline_details={"random": severities(frame_drop=[0.2, 0.1])},
    )
    found = dict(drawn(result)["shift"])
    assert set(found) == {"frame drop", "gaussian blur"}
    run, random = found["frame drop"]["data"]
    assert (run["x"], run["y"]) == ([0.0, 1.0, 2.0], [0.9, 0.8, 0.7])
    assert random["y"] == [0.9, 0.2, 0.1]
    assert len(found["gaussian blur"]["data"]) == 1


def test_runs_keep_their_colours_and_a_common_baseline_stands_once() -> None:
    same = {"baselines": {"random": {"top1_5_shot": 0.1}}}
    first, second = (protocol_object("low_shot", {"top1_5_shot": value}) | same for value in (0.3, 0.4))
    ((_, figure),) = drawn(first, second)["low_shot"]
    assert [trace["name"] for trace in figure["data"]] == ["run 0", "random, of run 0", "run 1"]
    colours = [trace["line"]["color"] for trace in figure["data"]]
    assert colours == [figures.run_colour(0), figures.pale(figures.run_colour(0)), figures.run_colour(1)]
    assert figures.pale("#000000") == "#7F7F7F"
