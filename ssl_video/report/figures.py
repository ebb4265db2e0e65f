"""The plots. Plotly: its whole script can stand inside the page, so that it opens from disk without a network.

Bokeh's script would do that too, but plotly's hover events carry what the thumbnails need and its figures are plain
JSON; Altair needs a converter program to be self-contained; Matplotlib's pictures have no hover at all.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio

from ssl_video.report.contents import Run
from ssl_video.report.feature_map import FeatureMap
from ssl_video.report.tables import Confusion

# Okabe and Ito's colours, which stay apart for readers who do not see red and green alike.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
GREY = "#9A9A9A"
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "star", "x", "triangle-down")

# More points than this in a curve are averaged: no screen shows them.
MAX_CURVE_POINTS = 1000
MAX_CURVES = 30
# In this order; a curve of few points shows them, as it was measured now and then.
CURVES_FIRST = ("train/loss", "val/", "train/", "health/")
FEW_POINTS = 100
# Up to so many classes a cell of the confusion matrix has its number in it.
MAX_NUMBERED_CLASSES = 16


def as_json(figure: go.Figure) -> dict[str, Any]:
    """The figure as plain values for the page's script."""
    plain: dict[str, Any] = json.loads(pio.to_json(figure, validate=False, engine="json"))
    return plain


def plain_text(text: str) -> str:
    """A name as plotly shows it literally: plotly takes tags in texts for mark-up."""
    return html.escape(text, quote=False)


def run_colour(number: int) -> str:
    """The colour of the run at a place."""
    return COLOURS[number % len(COLOURS)]


def pale(colour: str) -> str:
    """The colour half-way to white, for what stands beside a run."""
    return "#" + "".join(f"{(int(colour[place : place + 2], 16) + 255) // 2:02X}" for place in (1, 3, 5))


def run_dash(number: int) -> str:
    """The line of the run at a place: other than that of the run before it with its colour."""
    return DASHES[number // len(COLOURS) % len(DASHES)]


def _figure(*, height: int, x_title: str = "", y_title: str = "", **layout: Any) -> go.Figure:
    figure = go.Figure()
    axis = {"gridcolor": "#e6e6e6", "zerolinecolor": "#cccccc", "linecolor": "#777777", "automargin": True}
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        font={"family": "system-ui, 'DejaVu Sans', sans-serif", "size": 13, "color": "#1c1c1c"},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hoverlabel={"bgcolor": "white", "font": {"color": "#1c1c1c"}},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        xaxis={**axis, "title": {"text": x_title, "font": {"size": 13}, "standoff": 6}},
        yaxis={**axis, "title": {"text": y_title, "font": {"size": 13}, "standoff": 6}},
    )
    figure.update_layout(**layout)
    return figure


# --- training ---------------------------------------------------------------------------------------------------------


def curves(runs: Sequence[Run]) -> list[tuple[str, go.Figure]]:
    """One figure per column of ``metrics.csv``, the loss first, then what was asked and learnt; title and figure."""
    names = list(dict.fromkeys(name for run in runs for name in run.curves if name not in ("epoch", "step")))
    names.sort(key=lambda name: [not name.startswith(first) for first in CURVES_FIRST])
    return [(name, _curve(name, runs)) for name in names[:MAX_CURVES]]


def _curve(name: str, runs: Sequence[Run]) -> go.Figure:
    figure = _figure(height=260, x_title="step", showlegend=len(runs) > 1)
    for number, run in enumerate(runs):
        if name not in run.curves:
            continue
        steps, values = thinned(run.curves["step"], run.curves[name])
        figure.add_scatter(
            x=steps,
            y=values,
            mode="lines+markers" if len(steps) <= FEW_POINTS else "lines",
            name=plain_text(run.name),
            line={"color": run_colour(number), "dash": run_dash(number), "width": 1.5},
            marker={"size": 4},
        )
    return figure


def thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over neighbouring steps where a curve has more than a thousand points; values that are nan are left out."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if len(steps) <= MAX_CURVE_POINTS:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), MAX_CURVE_POINTS)
    return tuple(np.array([series[part].mean() for part in parts]) for series in (steps, values))  # type: ignore


# --- classes ----------------------------------------------------------------------------------------------------------


def confusion(matrix: Confusion) -> go.Figure:
    """Shares of each true class, by named class."""
    size = len(matrix.classes)
    total = matrix.counts.sum(axis=1, keepdims=True)
    shares = matrix.counts / np.maximum(total, 1)
    names = [plain_text(_cut(name)) for name in matrix.classes]
    side = min(900, max(380, 150 + 34 * size))
    figure = _figure(
        height=side, x_title="named class", y_title="true class", margin={"l": 60, "r": 20, "t": 10, "b": 60}
    )
    figure.add_heatmap(
        z=np.round(shares, 4),
        x=list(range(size)),
        y=list(range(size)),
        customdata=matrix.counts,
        colorscale=[[0.0, "#ffffff"], [0.05, "#e3eef6"], [0.5, "#56a0d0"], [1.0, "#08306b"]],
        zmin=0,
        zmax=1,
        xgap=1 if size <= 40 else 0,
        ygap=1 if size <= 40 else 0,
        text=matrix.counts if size <= MAX_NUMBERED_CLASSES else None,
        texttemplate="%{text}" if size <= MAX_NUMBERED_CLASSES else None,
        hovertemplate="true: %{y}<br>named: %{x}<br>%{customdata} videos, %{z:.0%} of the class<extra></extra>",
        colorbar={"title": {"text": "share"}, "tickformat": ".0%", "thickness": 12},
    )
    ticks = {"tickmode": "array", "tickvals": list(range(size)), "ticktext": names, "showgrid": False}
    ticks["tickfont"] = {"size": 12 if size <= 30 else 7 if size <= 110 else 5}
    figure.update_xaxes(**ticks, tickangle=-90 if size > 5 else 0)
    figure.update_yaxes(**ticks, autorange="reversed", ticklabelstandoff=4)
    return figure


# --- features ---------------------------------------------------------------------------------------------------------


def feature_map(
    points: FeatureMap, *, labels: Sequence[str | None], paths: Sequence[str], pictures: Mapping[int, str]
) -> go.Figure:
    """The map, one trace per class, so that a click on a name in the legend hides or isolates it.

    Args:
        points: the places.
        labels: of all N videos.
        paths: of all N videos.
        pictures: key of the thumbnail of those rows that have one.
    """
    classes = sorted({label for label in labels if label is not None})
    figure = _figure(height=620, hovermode="closest", margin={"l": 20, "r": 20, "t": 10, "b": 20})
    axis = {"showgrid": False, "zeroline": False, "showticklabels": False, "showline": False}
    ends = [(points.places[:, side].min(), points.places[:, side].max()) for side in (0, 1)]
    for low_high, update in zip(ends, (figure.update_xaxes, figure.update_yaxes), strict=True):
        margin = 0.04 * float(low_high[1] - low_high[0]) or 1.0
        update(**axis, range=[float(low_high[0]) - margin, float(low_high[1]) + margin])
    figure.update_layout(
        legend={"orientation": "v", "x": 1.01, "y": 1, "yanchor": "top", "maxheight": 1, "itemsizing": "constant"},
        showlegend=True,
    )
    shown = [labels[row] for row in points.rows]
    # Videos without a label first: they lie below the others.
    for number, name in enumerate([None, *classes]):
        own = np.array([place for place, label in enumerate(shown) if label == name], dtype=np.int64)
        if not len(own):
            continue
        rows = points.rows[own].tolist()
        with_picture = [row in pictures for row in rows]
        figure.add_scatter(
            x=np.round(points.places[own, 0], 3),
            y=np.round(points.places[own, 1], 3),
            mode="markers",
            name="no label" if name is None else plain_text(_cut(name)),
            text=[plain_text(paths[row]) for row in rows],
            customdata=[pictures.get(row, "") for row in rows],
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            marker={
                "color": GREY if name is None else COLOURS[(number - 1) % len(COLOURS)],
                "symbol": "circle" if name is None else SYMBOLS[(number - 1) // len(COLOURS) % len(SYMBOLS)],
                "size": 7,
                "opacity": 0.8,
                "line": {"width": [1.2 if has else 0 for has in with_picture], "color": "#1c1c1c"},
            },
        )
    return figure


def _cut(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"


# --- protocols --------------------------------------------------------------------------------------------------------


def bars(
    groups: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float | None], Sequence[Sequence[float] | None]]],
    *,
    y_title: str,
    chance: Mapping[str, float] | None = None,
) -> go.Figure:
    """Bars in groups, with intervals and the line of chance.

    Args:
        groups: names along the axis.
        series: name, colour, value per group, interval per group.
        y_title: what the values are.
        chance: group to what guessing gives.
    """
    figure = _figure(height=340, y_title=y_title, barmode="group", bargap=0.25, bargroupgap=0.06)
    places = list(range(len(groups)))
    for name, colour, values, intervals in series:
        ends = [
            (interval[1] - value, value - interval[0]) if value is not None and interval is not None else (0.0, 0.0)
            for value, interval in zip(values, intervals, strict=True)
        ]
        figure.add_bar(
            x=places,
            y=list(values),
            name=plain_text(name),
            marker={"color": colour},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [above for above, _ in ends],
                "arrayminus": [below for _, below in ends],
                "thickness": 1.2,
                "width": 4,
                "color": "#333333",
            },
            hovertemplate="%{y:.1%}<extra>%{fullData.name}</extra>",
        )
    for place, group in enumerate(groups):
        if chance and group in chance:
            figure.add_shape(
                type="line",
                x0=place - 0.46,
                x1=place + 0.46,
                y0=chance[group],
                y1=chance[group],
                line={"color": "#000000", "width": 1.5, "dash": "dot"},
            )
    if chance:
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name="chance", line={"color": "#000000", "width": 1.5, "dash": "dot"}
        )
    names = [plain_text(group) for group in groups]
    figure.update_xaxes(tickmode="array", tickvals=places, ticktext=names, tickangle=0, showgrid=False, zeroline=False)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def lines(
    series: Sequence[tuple[str, str, str, Sequence[float], Sequence[float], Sequence[float] | None]],
    *,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    height: int = 360,
    legend: bool = True,
) -> go.Figure:
    """Curves over a number, such as the share of labels or a severity.

    Args:
        series: name, colour, dash, places, values, and half the height of the error bars or None.
        x_title: what the number is.
        y_title: what the values are.
        log_x: whether the axis is logarithmic.
        height: in pixels.
        legend: whether names are shown.
    """
    figure = _figure(height=height, x_title=x_title, y_title=y_title, showlegend=legend)
    for name, colour, dash, x, y, spread in series:
        figure.add_scatter(
            x=list(x),
            y=list(y),
            mode="lines+markers",
            name=plain_text(name),
            line={"color": colour, "dash": dash, "width": 2},
            marker={"size": 6},
            error_y=None if spread is None else {"type": "data", "array": list(spread), "thickness": 1.2, "width": 4},
            hovertemplate="%{y:.1%}<extra>%{fullData.name}</extra>",
        )
    places = sorted({place for _, _, _, x, _, _ in series for place in x})
    figure.update_xaxes(tickmode="array", tickvals=places, ticktext=[f"{place:g}" for place in places])
    if log_x:
        figure.update_xaxes(type="log")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure
