"""``ssl-video compare``: two results side by side, and whether they may be compared at all."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
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
# Settings that a protocol chooses by itself for each network.
CHOSEN = ("strength", "lr", "converged", "strengths", "chosen_lr")


def main(argv: Sequence[str]) -> int:
    """Prints what differs and the metrics of both; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ssl-video compare", description=__doc__)
    parser.add_argument("first", type=Path, help="a metrics.json, or its folder")
    parser.add_argument("second", type=Path, help="another one")
    given = parser.parse_args(argv)
    try:
        reports = [read_report(path) for path in (given.first, given.second)]
        warnings = differences(reports)
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
        report: dict[str, Any] = json.loads(file.read_text())
    except OSError as fault:
        raise InputError(f"{path} has no metrics.json ({fault.strerror}); run evaluate.py first.") from fault
    except ValueError as fault:
        raise InputError(f"{file} is no JSON ({fault}); run evaluate.py again.") from fault
    if "protocol" not in report or "manifest_hash" not in report:
        raise InputError(f"{file} is no result of evaluate.py: it has no protocol and manifest_hash.")
    return report


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
        for name in (name for name in ours if name in theirs):  # a set's order differs from process to process
            found += _unequal(ours[name], theirs[name], OF_A_PROTOCOL, where=f"{name} of result {number}")
        if not ours.keys() & theirs.keys():
            found.append(f"result {number}: no protocol in common ({', '.join(ours)} against {', '.join(theirs)})")
    return found


def _unequal(
    first: Mapping[str, Any], other: Mapping[str, Any], keys: Mapping[str, str], *, where: str
) -> Iterator[str]:
    for key, meaning in keys.items():
        if key not in first or key not in other:
            continue
        ours, theirs = first[key], other[key]
        if isinstance(ours, dict) and isinstance(theirs, dict):
            names = [name for name in sorted({*ours, *theirs} - set(CHOSEN)) if ours.get(name) != theirs.get(name)]
            ours = ", ".join(f"{name}={ours.get(name)}" for name in names)
            theirs = ", ".join(f"{name}={theirs.get(name)}" for name in names)
        if ours != theirs:
            yield f"{where}: {meaning}: {key} {_shown(ours)} against {_shown(theirs)}"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:12] + "…"


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
    labels = np.array(tables[0]["label"], dtype=object)
    return {
        column.removesuffix("_prediction"): paired_difference_interval(
            *(np.array(np.array(table[column], dtype=object) == labels, dtype=float) for table in reversed(tables))
        )
        for column in columns
    }


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
