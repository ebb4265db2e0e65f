"""``ssl-video compare``: two results side by side, and whether they may be compared at all."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ssl_video.metrics.intervals import paired_difference_interval
from ssl_video.utils.errors import InputError

# What two results must have in common to be compared, and what it means where they have not.
MUST_AGREE = {
    "dataset": "other data",
    "label": "another label column",
    "split": "another split",
    "manifest_hash": "other videos, labels or splits under the same name",
    "missing": "another number of missing files",
    "undecodable": "another number of undecodable files",
    "videos": "another number of videos",
}
OF_A_PROTOCOL = {
    "protocol_version": "the protocol has changed between them",
    "variant": "other settings",
    "changed": "other settings were changed by hand",
    "settings": "other settings",
}
# Settings that a protocol chooses by itself for each network, or that come out of it, by the protocol's name: what
# one protocol chooses another is given (low_shot its strength).
CHOSEN: dict[str, tuple[str, ...]] = {
    "linear_probe": ("strength", "lr", "converged"),
    "shift": ("strength", "converged", "left_out"),
    "temporal_probes": ("strengths",),
}
IN_EVERY_RESULT = ("protocol", "dataset", "label", "manifest_hash")
DIGEST_LENGTH = 64  # of sha256 in hexadecimal


def main(argv: Sequence[str]) -> int:
    """Prints what differs and the metrics of both; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ssl-video compare", description=__doc__)
    parser.add_argument("first", type=Path, help="a metrics.json, or its folder")
    parser.add_argument("second", type=Path, help="another one")
    given = parser.parse_args(argv)
    try:
        reports = [read_report(path) for path in (given.first, given.second)]
        warnings = differences(reports)
        verdict = "Not comparable, see the warnings below:" if warnings else "Same videos, labels and settings:"
        print(verdict)
        print(format_comparison(reports, paired_intervals(given.first, given.second) if not warnings else {}))
        for line in warnings:
            print(f"Warning: {line}", file=sys.stderr)
    except InputError as fault:
        print(fault, file=sys.stderr)
        return 2
    return 0


def read_report(path: Path) -> dict[str, Any]:
    """Content of a ``metrics.json``, by its path or its folder's.

    Raises:
        InputError: there is none, or it is no result of ours.
    """
    file = path / "metrics.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text())
    except OSError as fault:
        raise InputError(f"{path} has no metrics.json ({fault.strerror}); run evaluate.py first.") from fault
    except ValueError as fault:
        raise InputError(f"{file} is no JSON ({fault}); run evaluate.py again.") from fault
    if not _is_result(report):
        raise InputError(f"{file} is no result of evaluate.py: {', '.join(IN_EVERY_RESULT)} and metrics are not there.")
    return dict(report)


def _is_result(content: Any) -> bool:
    if not isinstance(content, dict) or not content.keys() >= set(IN_EVERY_RESULT):
        return False
    objects = content.get("results", {content["protocol"]: content})
    return isinstance(objects, dict) and all(
        isinstance(own, dict) and own.keys() >= set(IN_EVERY_RESULT) and isinstance(own.get("metrics"), dict)
        for own in objects.values()
    )


def protocol_reports(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A result's objects by protocol: its own, or those of a scorecard."""
    own: dict[str, Mapping[str, Any]] = report["results"] if "results" in report else {report["protocol"]: report}
    return own


def differences(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands against comparing results, each with both values; none where they may be compared."""
    if len(reports) < 2:
        return []
    first = reports[0]
    found: list[str] = []
    for number, other in enumerate(reports[1:], start=2):
        found += _unequal(first, other, MUST_AGREE, where=f"result {number}")
        ours, theirs = protocol_reports(first), protocol_reports(other)
        if "results" in first and "results" in other:
            found += _unequal(first, other, OF_A_PROTOCOL, where=f"{first['protocol']} of result {number}")
        for name in (name for name in ours if name in theirs):  # a set's order differs from process to process
            own, its = (_without_chosen(report[name], CHOSEN.get(name, ())) for report in (ours, theirs))
            found += _unequal(own, its, OF_A_PROTOCOL, where=f"{name} of result {number}")
        if not ours.keys() & theirs.keys():
            found.append(f"result {number}: no protocol in common ({', '.join(ours)} against {', '.join(theirs)})")
    return found


def _without_chosen(report: Mapping[str, Any], chosen: Collection[str]) -> Mapping[str, Any]:
    settings = {name: value for name, value in report.get("settings", {}).items() if name not in chosen}
    return {**report, "settings": settings} if "settings" in report else report


def _unequal(
    first: Mapping[str, Any], other: Mapping[str, Any], keys: Mapping[str, str], *, where: str
) -> Iterator[str]:
    for key, meaning in keys.items():
        if key not in first or key not in other or first[key] == other[key]:
            continue
        ours, theirs = first[key], other[key]
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield f"{where}: {meaning}: {key} {' against '.join(_unequal_entries(ours, theirs))}"
        else:
            yield f"{where}: {meaning}: {key} {_shown(ours)} against {_shown(theirs)}"


def _unequal_entries(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The entries of each of two mappings that differ, those of mappings within by their path (``a.b=1``)."""
    entries = [_flat(first), _flat(other)]
    names = [name for name in sorted({*entries[0], *entries[1]}) if entries[0].get(name) != entries[1].get(name)]
    return [", ".join(f"{name}={_shown(own.get(name))}" for name in names) for own in entries]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= {f"{name}.{inner}": own for inner, own in _flat(value).items()}
        else:
            found[name] = value
    return found


def _shown(value: Any) -> str:
    """A value as text; of a digest the first characters, which are enough to tell two apart."""
    text = str(value)
    return text[:12] + "…" if len(text) == DIGEST_LENGTH and " " not in text else text


def paired_intervals(first: Path, second: Path) -> dict[str, tuple[float, float]]:
    """Intervals of the second's top-1 less the first's, video by video, of every protocol that tells its predictions.

    Empty where a result was written without them, or where the two asked other videos.
    """
    tables = []
    for path in (first, second):
        file = (path if path.is_dir() else path.parent) / "predictions.parquet"
        if not file.exists():
            return {}
        tables.append(pq.read_table(file).to_pydict())
    if tables[0]["path"] != tables[1]["path"] or tables[0]["label"] != tables[1]["label"]:
        return {}
    columns = [name for name in tables[0] if name.endswith("_prediction") and name in tables[1]]
    return {column.removesuffix("_prediction"): interval for column in columns if (interval := _paired(tables, column))}


def _paired(tables: Sequence[Mapping[str, list[Any]]], column: str) -> tuple[float, float] | None:
    """The interval of one protocol, over the videos that both could read; None where there are none."""
    labels, first, second = (
        np.array(values, dtype=object) for values in (tables[0]["label"], *(table[column] for table in tables))
    )
    read = np.array([None not in pair for pair in zip(first, second, strict=True)], dtype=bool)
    if not read.any():
        return None
    hits = (np.array(own[read] == labels[read], dtype=float) for own in (second, first))
    return paired_difference_interval(*hits)


def format_comparison(reports: Sequence[Mapping[str, Any]], paired: Mapping[str, tuple[float, float]]) -> str:
    """One line per metric that both have; for top-1 also the interval of the difference."""
    first, second = (protocol_reports(report) for report in reports)
    rows = [("", "first", "second", "second - first", "95 % interval")]
    for name, own in first.items():
        for metric, value in own["metrics"].items() if name in second else ():
            if metric not in second[name]["metrics"]:
                continue
            other = second[name]["metrics"][metric]
            low_high = paired.get(name) if metric == "top1" else None
            interval = "" if low_high is None else f"{low_high[0]:+.3f} to {low_high[1]:+.3f}"
            rows.append((f"{name} {metric}", f"{value:.3f}", f"{other:.3f}", f"{other - value:+.3f}", interval))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) if not place else text.rjust(width) for place, (text, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join(line.rstrip() for line in lines)
