"""Figures of the protocols that have more to show than a row of numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ssl_video.report import figures
from ssl_video.report.contents import Measured

# name, title, explanation, figures with their captions.
Section = tuple[str, str, str, list[tuple[str, go.Figure]]]
Plots = list[tuple[str, go.Figure]]


def protocol_figures(group: Sequence[Measured]) -> list[Section]:
    """The sections that the results have something for."""
    makers: list[tuple[str, str, str, Callable[[Sequence[Measured]], Plots]]] = [
        (
            "temporal_probes",
            "Does it use time?",
            "The same classifier on clips as they are, with one frame frozen, with frames shuffled, and backwards: "
            "bars as high as the normal one mean that the features do not use what was altered. Beside them, what "
            "can be read from the frozen features about time itself: were the frames shown forwards or backwards, "
            "how fast, and which of two clips came first? Dotted: chance. Thin lines: 95 % intervals; for means over "
            "official splits, the deviation over them.",
            _temporal,
        ),
        (
            "low_shot",
            "Few labels",
            "Accuracy when the classifier may see only so many labels: good features need few. Thin lines: standard "
            "deviation over the draws of the labels.",
            _low_shot,
        ),
        (
            "shift",
            "Robustness",
            "Accuracy on spoilt test videos, by severity from 0 (as they are) to 5. The classifier has seen clean ones "
            "only. A curve that stays level belongs to features that do not mind.",
            _shift,
        ),
    ]
    sections = [(name, title, text, make(group)) for name, title, text, make in makers]
    return [section for section in sections if section[3]]


def _rows(one: Measured, protocol: str) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]:
    """Name, metrics, intervals and details of a run and of its baselines.

    Means over official splits have no intervals; the deviation over the splits to both sides stands for them.
    """
    found = one.results.get(protocol)
    if found is None:
        return []
    own = found.get("metrics", {})
    rows = [
        (one.run, own, found.get("intervals") or _around(own, found.get("metrics_std", {})), found.get("details", {}))
    ]
    for name, metrics in found.get("baselines", {}).items():
        intervals = found.get("baseline_intervals", {}).get(name, {})
        intervals = intervals or _around(metrics, found.get("baselines_std", {}).get(name, {}))
        rows.append((name, metrics, intervals, found.get("baseline_details", {}).get(name, {})))
    return rows


def _around(metrics: Mapping[str, float], deviations: Mapping[str, float]) -> dict[str, list[float]]:
    return {
        name: [metrics[name] - deviation, metrics[name] + deviation]
        for name, deviation in deviations.items()
        if name in metrics
    }


def _lines_of(
    group: Sequence[Measured], protocol: str
) -> list[tuple[str, str, str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]:
    """Name, colour, dash, metrics, intervals and details: each run in its colour, its baselines paler and dashed.

    A baseline that several runs have in common stands there once.
    """
    found: list[tuple[str, str, str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = []
    baselines: list[tuple[str, Mapping[str, Any]]] = []
    for one in group:
        for place, (name, metrics, intervals, details) in enumerate(_rows(one, protocol)):
            if place == 0:
                colour, dash = figures.run_colour(one.number), figures.run_dash(one.number)
                found.append((name, colour, dash, metrics, intervals, details))
            elif (name, metrics) not in baselines:
                baselines.append((name, metrics))
                alone = len(group) == 1
                colour = figures.GREY if alone else figures.pale(figures.run_colour(one.number))
                dash = figures.DASHES[1 + (place - 1) % (len(figures.DASHES) - 1)]
                title = name if alone else f"{name}, of {one.run}"
                found.append((title, colour, dash, metrics, intervals, details))
    return found


# --- few labels -------------------------------------------------------------------------------------------------------

_LABELS = (
    (re.compile(r"top1_at_([\d_]+)_percent"), "share of the train labels, %"),
    (re.compile(r"top1_(\d+)_shot"), "labelled videos per class"),
)


def _low_shot(group: Sequence[Measured]) -> Plots:
    plots: Plots = []
    for pattern, x_title in _LABELS:
        series = []
        for name, colour, dash, metrics, _, _ in _lines_of(group, "low_shot"):
            points = sorted(
                (float(found[1].replace("_", ".")), value, metrics.get(f"{metric}_std", 0.0))
                for metric, value in metrics.items()
                if (found := pattern.fullmatch(metric))
            )
            if points:
                x, y, spread = (list(values) for values in zip(*points, strict=True))
                series.append((name, colour, dash, x, y, spread))
        if series:
            figure = figures.lines(series, x_title=x_title, y_title="top-1 accuracy", log_x=True)
            plots.append(("", figure))
    return plots


# --- time -------------------------------------------------------------------------------------------------------------

_STATES = {
    "top1": "as they are",
    "top1_frozen": "one frame held",
    "top1_shuffled": "shuffled",
    "top1_reversed": "backwards",
}
# Short, so that all stand level and none is left out beneath a figure of half the page's width.
_QUESTIONS = {
    "arrow_of_time": "forwards?",
    "speed": "how fast?",
    "order": "which first?",
}


def _temporal(group: Sequence[Measured]) -> Plots:
    chance: dict[str, float] = {}
    for one in group:
        chance |= one.results.get("temporal_probes", {}).get("settings", {}).get("chance", {})
    # Guessing is right as often whatever is done to the clips.
    if "top1" in chance:
        chance |= dict.fromkeys(_STATES, chance["top1"])
    rows = _lines_of(group, "temporal_probes")
    plots: Plots = []
    for caption, names, y_title in (
        ("The class, from altered clips", _STATES, "top-1 accuracy"),
        ("Time itself, from the features", _QUESTIONS, "right answers"),
    ):
        asked = [name for name in names if any(name in metrics for _, _, _, metrics, _, _ in rows)]
        if not asked:
            continue
        series = [
            (title, colour, [metrics.get(name) for name in asked], [intervals.get(name) for name in asked])
            for title, colour, _, metrics, intervals, _ in rows
        ]
        lines = {names[name]: chance[name] for name in asked if name in chance}
        plots.append((caption, figures.bars([names[name] for name in asked], series, y_title=y_title, chance=lines)))
    return plots


# --- corruptions ------------------------------------------------------------------------------------------------------


def _shift(group: Sequence[Measured]) -> Plots:
    """One figure per corruption, from the tables of top-1 by kind and severity; clean clips are severity 0."""
    curves: dict[str, list[tuple[str, str, str, list[float], list[float], None]]] = {}
    for title, colour, dash, _, _, details in _lines_of(group, "shift"):
        by_kind: dict[str, list[tuple[float, float]]] = {}
        clean: list[tuple[float, float]] = []
        for row in details.get("severities", []):
            points = clean if row["severity"] == 0 else by_kind.setdefault(str(row["kind"]), [])
            points.append((float(row["severity"]), float(row["top1"])))
        for kind, points in by_kind.items():
            severities, accuracies = (list(values) for values in zip(*sorted([*clean, *points]), strict=True))
            curves.setdefault(kind, []).append((title, colour, dash, severities, accuracies, None))
    return [
        (
            kind.replace("_", " "),
            figures.lines(series, x_title="severity", y_title="top-1 accuracy", height=270),
        )
        for kind, series in curves.items()
    ]
