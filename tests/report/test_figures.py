"""What the plots show, read back from their JSON."""

import base64
from typing import Any

import numpy as np
import pytest

from ssl_video.report import figures
from ssl_video.report.contents import Run
from ssl_video.report.feature_map import FeatureMap
from ssl_video.report.tables import Confusion


def values(array: Any) -> np.ndarray:
    """An array as plotly writes it: a list, or base64 with its type."""
    if isinstance(array, dict):
        found = np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])
        return found.reshape([int(part) for part in array["shape"].split(",")]) if "shape" in array else found
    return np.array(array)


def run_with(**curves: np.ndarray) -> Run:
    return Run("run", curves=curves)


def test_each_curve_has_its_own_figure_the_loss_first() -> None:
    steps = np.arange(5.0)
    first = run_with(epoch=steps, step=steps, **{"train/info_nce": steps, "train/loss": 2 * steps})
    found = figures.curves([first, run_with(step=steps, **{"train/loss": 3 * steps})])
    assert [title for title, _ in found] == ["train/loss", "train/info_nce"]
    loss = figures.as_json(found[0][1])["data"]
    assert [values(trace["y"]).tolist() for trace in loss] == [(2 * steps).tolist(), (3 * steps).tolist()]
    assert loss[0]["line"]["color"] != loss[1]["line"]["color"]


def test_values_that_are_measured_now_and_then_come_behind_with_their_points() -> None:
    steps = np.arange(5.0)
    rare = np.array([np.nan, 1.0, np.nan, np.nan, 2.0])
    names = ["health/feature_std", "train/info_nce", "train/loss", "val/knn_top1"]
    found = figures.curves([run_with(step=steps, **dict.fromkeys(names, rare))])
    assert [title for title, _ in found] == ["train/loss", "val/knn_top1", "train/info_nce", "health/feature_std"]
    trace = figures.as_json(found[-1][1])["data"][0]
    assert values(trace["x"]).tolist() == [1, 4] and "markers" in trace["mode"]


def test_long_curves_are_averaged_and_holes_left_out() -> None:
    steps = np.arange(10_000.0)
    losses = np.where(steps % 2 == 0, 1.0, 3.0)
    losses[17] = np.nan
    x, y = figures.thinned(steps, losses)
    assert len(x) == len(y) == figures.MAX_CURVE_POINTS
    assert np.all(np.abs(y - 2.0) < 0.21)  # a hole leaves nine values of ten
    assert (np.diff(x) > 0).all()
    short = figures.thinned(steps[:20], losses[:20])
    assert len(short[0]) == 19 and not np.isnan(short[1]).any()


@pytest.mark.parametrize(("size", "numbered"), [(3, True), (100, False)])
def test_the_confusion_matrix_has_numbers_only_where_they_can_be_read(size: int, numbered: bool) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (size, size))
    names = [f"class <{number}>" for number in range(size)]
    drawn = figures.as_json(figures.confusion(Confusion("a", "knn", names, counts, [])))
    (heat,) = drawn["data"]
    assert ("text" in heat and heat["text"] is not None) == numbered
    assert np.allclose(values(heat["z"]), counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), atol=1e-4)
    assert np.array_equal(values(heat["customdata"]), counts)
    assert drawn["layout"]["xaxis"]["ticktext"][0] == "class &lt;0&gt;"
    assert drawn["layout"]["height"] <= 900


def test_the_map_has_a_trace_per_class_and_pictures_only_where_there_are() -> None:
    points = FeatureMap(np.array([0, 2, 3, 5]), np.arange(8.0).reshape(4, 2), "t-SNE")
    figure = figures.feature_map(
        points, labels=["b", "x", "a", None, "x", "b"], paths=[f"<{n}>" for n in range(6)], pictures={2: "p1", 5: "p2"}
    )
    traces = figures.as_json(figure)["data"]
    assert [trace["name"] for trace in traces] == ["no label", "a", "b"]
    assert [list(trace["customdata"]) for trace in traces] == [[""], ["p1"], ["", "p2"]]
    assert [list(trace["text"]) for trace in traces] == [["&lt;3&gt;"], ["&lt;2&gt;"], ["&lt;0&gt;", "&lt;5&gt;"]]
    assert values(traces[2]["x"]).tolist() == [0.0, 6.0]


def test_forty_classes_look_different() -> None:
    number = 40
    points = FeatureMap(np.arange(number), np.random.default_rng(0).random((number, 2)), "t-SNE")
    labels = [f"class {place:02d}" for place in range(number)]
    traces = figures.as_json(figures.feature_map(points, labels=labels, paths=labels, pictures={}))["data"]
    assert len({(trace["marker"]["color"], trace["marker"]["symbol"]) for trace in traces}) == number


def test_bars_carry_their_intervals_and_the_line_of_chance() -> None:
    figure = figures.bars(
        ["normal", "frozen"],
        [("<run>", "#000000", [0.5, None], [[0.4, 0.7], None])],
        y_title="top-1",
        chance={"normal": 0.25},
    )
    drawn = figures.as_json(figure)
    bar = drawn["data"][0]
    assert bar["name"] == "&lt;run&gt;"
    assert values(bar["error_y"]["array"])[0] == pytest.approx(0.2)
    assert values(bar["error_y"]["arrayminus"])[0] == pytest.approx(0.1)
    (line,) = drawn["layout"]["shapes"]
    assert line["y0"] == line["y1"] == 0.25
    assert drawn["data"][-1]["name"] == "chance"


def test_runs_beyond_the_colours_have_another_line() -> None:
    number = len(figures.COLOURS)
    styles = [(figures.run_colour(place), figures.run_dash(place)) for place in range(2 * number)]
    assert len(set(styles)) == 2 * number
