"""The tables of the page, as plain rows for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssl_video.report.contents import Measured, Run, preferred
from ssl_video.report.words import (
    is_headline,
    listed,
    metric_title,
    protocol_sentence,
    protocol_title,
    setting_text,
    shown,
    shown_interval,
)

# Whose predictions the confusion matrix shows: the first that there is, never the one that looks best.
PREDICTION_ORDER = ("linear_probe", "finetune", "knn")
# Their predictions, of clean clips, are another protocol's over again.
_ASKED_BESIDES = ("shift",)


@dataclass(frozen=True)
class Cell:
    """A value with what stands beneath it, in words.

    Attributes:
        text: the value.
        interval: its 95 % interval.
        has_no_width: whether both ends of the interval are the same to the digits shown.
        over_splits: its deviation over official splits.
        spread: its deviation over draws of the labels.
    """

    text: str
    interval: str = ""
    has_no_width: bool = False
    over_splits: str = ""
    spread: str = ""


@dataclass(frozen=True)
class ScoreRow:
    """One metric over the columns; headlines are those of the first table."""

    metric: str
    cells: list[Cell]
    is_headline: bool = True


@dataclass(frozen=True)
class ScoreTable:
    """The results of the runs on one data set and label.

    Attributes:
        title: the data set and label.
        beneath: what the values are and what stands beneath them, in a sentence.
        columns: heading of each column and whether it is a baseline.
        sections: protocol, what it does, its rows.
        skipped: what a scorecard left out, with the reason.
    """

    title: str
    beneath: str
    columns: list[tuple[str, bool]]
    sections: list[tuple[str, str, list[ScoreRow]]]
    skipped: list[str]

    @property
    def has_more(self) -> bool:
        """Whether there are metrics that are not in the first table."""
        return not all(row.is_headline for _, _, rows in self.sections for row in rows)

    def without_width(self, *, only_headlines: bool) -> str | None:
        """The first interval without a width, such as ``100.0 to 100.0``; None where every interval has one."""
        rows = [row for _, _, rows in self.sections for row in rows if row.is_headline or not only_headlines]
        return next((cell.interval for row in rows for cell in row.cells if cell.has_no_width), None)


@dataclass(frozen=True)
class _Column:
    """One run or baseline; by protocol its metrics, and by metric their intervals and deviations over splits."""

    title: str
    is_baseline: bool
    metrics: dict[str, Mapping[str, float]]
    intervals: dict[str, Mapping[str, Any]]
    over_splits: dict[str, Mapping[str, float]]

    def cell(self, key: str, name: str) -> Cell:
        metrics, interval = self.metrics.get(key, {}), self.intervals.get(key, {}).get(name)
        return Cell(
            shown(name, metrics.get(name)),
            interval=shown_interval(name, interval),
            has_no_width=interval is not None and len({shown(name, end) for end in interval}) == 1,
            over_splits=_deviation(name, self.over_splits.get(key, {}).get(name), over="splits"),
            spread=_deviation(name, metrics.get(f"{name}_std"), over="draws"),
        )


def _deviation(name: str, value: float | None, *, over: str) -> str:
    # Equal values differ from their mean by the last bits.
    return "" if value is None else f"± {shown(name, round(value, 12)).removesuffix(' %')} over {over}"


def score_table(where: tuple[str, str], group: Sequence[Measured]) -> ScoreTable:
    """Runs side by side, each baseline in a column of its own; equal ones of several runs share it."""
    columns = [
        _Column(
            one.run,
            False,
            {key: result.get("metrics", {}) for key, result in one.results.items()},
            {key: result.get("intervals", {}) for key, result in one.results.items()},
            {key: result.get("metrics_std", {}) for key, result in one.results.items()},
        )
        for one in group
    ] + _baseline_columns(group)
    keys = list(dict.fromkeys(key for one in group for key in one.results))
    sections = []
    for key in keys:
        names = list(dict.fromkeys(name for column in columns for name in column.metrics.get(key, {})))
        # A deviation over draws stands beside its mean.
        names = [name for name in names if name.removesuffix("_std") == name or name.removesuffix("_std") not in names]
        rows = [
            ScoreRow(
                metric_title(name) + _chance(name, group, key),
                [column.cell(key, name) for column in columns],
                is_headline(key, name),
            )
            for name in names
        ]
        sections.append((protocol_title(key), protocol_sentence(key), rows))
    skipped = [
        f"{one.run}: {name} was left out: {reason}" for one in group for name, reason in one.report["skipped"].items()
    ] + [
        f"{one.run}, {protocol_title(key)}: {metric_title(name)} was left out: {reason}"
        for one in group
        for key, result in one.results.items()
        for name, reason in result.get("settings", {}).get("left_out", {}).items()
    ]
    return ScoreTable(
        title=data_title(where),
        beneath=_beneath(group, columns),
        columns=[(column.title, column.is_baseline) for column in columns],
        sections=sections,
        skipped=skipped,
    )


def _chance(name: str, group: Sequence[Measured], key: str) -> str:
    """What guessing gives, where the protocol says so and the runs agree."""
    told = {one.results.get(key, {}).get("settings", {}).get("chance", {}).get(name) for one in group} - {None}
    return f" (chance {shown(name, told.pop())})" if len(told) == 1 else ""


def _beneath(group: Sequence[Measured], columns: Sequence[_Column]) -> str:
    """Says what the values are: of one split's videos with intervals, means over official splits, or some of each."""
    means = [
        f"{one.run}: "
        * (len(group) > 1)
        + f"means over the official splits {listed(one.official_splits)}, with the sample standard deviation over "
        "these splits (±) beneath"
        for one in group
        if one.official_splits
    ]
    parts = ["Shares of test videos in per cent"]
    if any(intervals for column in columns for intervals in column.intervals.values()):
        parts[0] += ", with the 95\u00a0% bootstrap interval over videos beneath"
    return "; ".join([*parts, *means]) + "."


def result_notes(group: Sequence[Measured]) -> list[str]:
    """What an evaluation says of its own results, such as that the checkpoint has seen test videos."""
    return [f"{one.run}: {one.report['note']}" for one in group if one.report.get("note")]


def data_title(where: tuple[str, str]) -> str:
    """A data set with its label."""
    name, label = where
    return name if label == "None" else f"{name} · {label}"


def _baseline_columns(group: Sequence[Measured]) -> list[_Column]:
    columns: list[tuple[_Column, list[str]]] = []
    for one in group:
        names = list(dict.fromkeys(name for result in one.results.values() for name in result.get("baselines", {})))
        for name in names:
            metrics = {key: result.get("baselines", {}).get(name, {}) for key, result in one.results.items()}
            intervals = {key: result.get("baseline_intervals", {}).get(name, {}) for key, result in one.results.items()}
            over = {key: result.get("baselines_std", {}).get(name, {}) for key, result in one.results.items()}
            column = _Column(name, True, metrics, intervals, over)
            for other, runs in columns:
                if (other.title, other.metrics) == (name, metrics):
                    runs.append(one.run)
                    break
            else:
                columns.append((column, [one.run]))
    titles = [column.title for column, _ in columns]
    return [
        column if titles.count(column.title) == 1 else replace(column, title=f"{column.title}, of {' and '.join(runs)}")
        for column, runs in columns
    ]


# --- what was run -----------------------------------------------------------------------------------------------------


Facts = list[tuple[str, list[str]]]


def run_facts(runs: Sequence[Run]) -> Facts:
    """What each training was: heading and one text per run; rows in which no run has anything are left out."""
    records = [run.record for run in runs]
    choices = [record.get("choices", {}) for record in records]
    titles = ("method", "backbone", "dataset", "transform", "optimizer", "scheduler")
    return _told(
        [
            *((title, [choice.get(title) for choice in choices]) for title in titles),
            ("steps", [record.get("steps") for record in records]),
            ("finished", [{True: "yes", False: "no"}.get(record.get("finished", "")) for record in records]),
            ("training videos used", [record.get("used") for record in records]),
            ("manifest hash", [_short(record.get("manifest_hash")) for record in records]),
            ("training time", [_duration(record.get("seconds")) for record in records]),
        ]
    )


def software_facts(runs: Sequence[Run]) -> Facts:
    """With what each training was run, likewise."""
    records = [run.record for run in runs]
    packages = list(dict.fromkeys(name for record in records for name in record.get("versions", {})))
    return _told(
        [
            ("command", [record.get("command") for record in records]),
            ("revision", [record.get("git_revision") for record in records]),
            ("device", [_device(record) for record in records]),
            ("peak memory", [_gibibytes(record.get("peak_memory_bytes")) for record in records]),
            ("Python", [record.get("python") for record in records]),
            *((package, [record.get("versions", {}).get(package) for record in records]) for package in packages),
        ]
    )


def _told(rows: Sequence[tuple[str, Sequence[Any]]]) -> Facts:
    texts = [(title, ["" if value is None else str(value) for value in values]) for title, values in rows]
    return [(title, [text or "–" for text in values]) for title, values in texts if any(values)]


def result_facts(group: Sequence[Measured]) -> list[tuple[str, list[str]]]:
    """What was measured on what, one text per run."""
    reports = [one.report for one in group]
    rows: list[tuple[str, list[str]]] = [
        ("checkpoint", [str(report.get("checkpoint", "–")) for report in reports]),
        ("backbone", [str(report.get("backbone", "–")) for report in reports]),
        ("split asked", [str(report.get("split", "–")) for report in reports]),
        ("manifest hash", [str(report.get("manifest_hash", "–")) for report in reports]),
    ]
    if any(one.official_splits for one in group):
        texts = [listed(one.official_splits) + " (counts and times are their sums)" for one in group]
        rows.append(
            ("official splits", [text if one.official_splits else "–" for one, text in zip(group, texts, strict=True)])
        )
    for key in ("videos", "missing", "undecodable"):
        rows.append((key, [str(report.get(key, "–")) for report in reports]))
    rows.append(("classes", [str(len(_classes(one)) or "–") for one in group]))
    rows.append(("evaluation time", [_duration(_seconds(one)) or "–" for one in group]))
    return rows


def protocol_settings(group: Sequence[Measured]) -> list[tuple[str, list[str]]]:
    """Version and settings of every protocol, one text per run."""
    keys = list(dict.fromkeys(key for one in group for key in one.results))
    rows = []
    for key in keys:
        texts = []
        for one in group:
            result = one.results.get(key)
            texts.append("–" if result is None else _settings(result))
        rows.append((protocol_title(key), texts))
    return rows


def _settings(result: Mapping[str, Any]) -> str:
    parts = [f"version {result.get('protocol_version', '?')}"]
    parts += [f"{name}={setting_text(value)}" for name, value in result.get("settings", {}).items()]
    if result.get("changed"):
        parts.append(f"changed by hand: {', '.join(map(str, result['changed']))}")
    return ", ".join(parts)


def _classes(one: Measured) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(
        (result["videos_per_class"] for result in one.results.values() if result.get("videos_per_class")), {}
    )
    return found or dict.fromkeys(label for label in (one.predictions.labels if one.predictions else ()) if label)


def _seconds(one: Measured) -> float | None:
    if "seconds" in one.report and len(one.results) > 1:
        return float(one.report["seconds"])
    seconds = [result["seconds"] for result in one.results.values() if "seconds" in result]
    return sum(seconds) if seconds else None


def _short(value: Any) -> str | None:
    return None if value is None else str(value)[:12]


def _device(record: Mapping[str, Any]) -> str | None:
    if "device" not in record:
        return None
    return f"{record['device']}, {record.get('threads', '?')} threads"


def _duration(seconds: Any) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    units = ((120, 1, "s", 0), (7200, 60, "min", 1), (float("inf"), 3600, "h", 1))
    return next(f"{seconds / size:.{digits}f} {unit}" for end, size, unit, digits in units if seconds < end)


def _gibibytes(value: Any) -> str | None:
    return f"{value / 2**30:.2f} GiB" if isinstance(value, int | float) else None


# --- classes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassTable:
    """Accuracy of each class.

    Attributes:
        columns: run and protocol of each column.
        rows: class, its test videos, share right per column (None where the column has none of it).
    """

    columns: list[str]
    rows: list[tuple[str, int, list[float | None]]]


def class_table(group: Sequence[Measured]) -> ClassTable | None:
    """Per-class accuracy of every protocol that names classes, sorted by the first column, worst last."""
    columns: list[tuple[str, np.ndarray, np.ndarray]] = []
    for one in group:
        if one.predictions is None:
            continue
        labels = np.array(one.predictions.labels, dtype=object)
        known = np.array([label is not None for label in labels], dtype=bool)
        for protocol, predicted in one.predictions.predicted.items():
            if protocol in _ASKED_BESIDES:
                continue
            name = protocol_title(protocol)
            title = name if len(group) == 1 else f"{one.run}: {name}"
            columns.append((title, labels[known], np.array(predicted, dtype=object)[known]))
    columns = [column for column in columns if len(column[1])]
    if not columns:
        return None
    classes = sorted({str(label) for _, truth, _ in columns for label in truth})
    rows = []
    for name in classes:
        shares: list[float | None] = []
        for _, truth, named in columns:
            own = truth == name
            shares.append(float((named[own] == name).mean()) if own.any() else None)
        rows.append((name, max(int((truth == name).sum()) for _, truth, _ in columns), shares))
    rows.sort(key=lambda row: (-(row[2][0] if row[2][0] is not None else -1.0), row[0]))
    return ClassTable([title for title, _, _ in columns], rows)


@dataclass(frozen=True)
class Confusion:
    """Counts of true and named classes.

    Attributes:
        run: the run's name.
        protocol: whose predictions.
        classes: C names, of the rows (true) and columns (named) alike.
        counts: ``[C, C]``.
        worst: the most frequent mistakes: true class, named class, how many, share of the true class.
    """

    run: str
    protocol: str
    classes: list[str]
    counts: np.ndarray
    worst: list[tuple[str, str, int, float]]


def confusion(one: Measured, *, num_worst: int = 10) -> Confusion | None:
    """The confusion matrix of the linear probe, or else of fine-tuning, kNN, the first protocol with predictions."""
    found = one.predictions
    protocol = None if found is None else preferred(found.predicted, PREDICTION_ORDER)
    if found is None or protocol is None:
        return None
    pairs = [
        (str(label), str(named))
        for label, named in zip(found.labels, found.predicted[protocol], strict=True)
        if label is not None and named is not None
    ]
    if not pairs:
        return None
    classes = sorted({name for pair in pairs for name in pair})
    number = {name: place for place, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, tuple(np.array([[number[name] for name in pair] for pair in pairs]).T), 1)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:num_worst]
    places = [divmod(int(place), len(classes)) for place in order]
    worst = [
        (classes[true], classes[named], int(wrong[true, named]), float(wrong[true, named] / counts[true].sum()))
        for true, named in places
        if wrong[true, named]
    ]
    return Confusion(one.run, protocol_title(protocol), classes, counts, worst)
