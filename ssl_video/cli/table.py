"""``ssl-video table``: the results below some folders as one table, mean and deviation over seeds."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_video.utils.errors import InputError
from ssl_video.utils.run import holds_run, read_record

# What a row shows of each protocol.
SHOWN = {
    "knn": ("top1", "balanced_accuracy"),
    "linear_probe": ("top1", "balanced_accuracy"),
    "retrieval": ("recall_at_1", "recall_at_5", "recall_at_10"),
}
Table = dict[tuple[str, str], dict[tuple[str, str], list[float]]]


def main(argv: Sequence[str]) -> int:
    """Prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(prog="ssl-video table", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs and their evaluations")
    given = parser.parse_args(argv)
    try:
        print(format_markdown(collect(given.folders)))
    except InputError as fault:
        print(fault)
        return 2
    return 0


def collect(folders: Sequence[Path]) -> Table:
    """Values of every run, by (data set and label, method) and (protocol, metric); random rows stand beside.

    Raises:
        InputError: there is no metrics.json below the folders.
    """
    files = sorted(file for folder in folders for file in folder.rglob("metrics.json"))
    if not files:
        raise InputError(f"There is no metrics.json below {', '.join(map(str, folders))}; run evaluate.py first.")
    table: Table = defaultdict(lambda: defaultdict(list))
    for file in files:
        report: dict[str, Any] = json.loads(file.read_text())
        # The hash tells two data sets of one name apart: every folder of videos is `folder`.
        where = f"{report['dataset']} {report['manifest_hash'][:6]} ({report['label']})"
        method = _method(file)
        rows = {method: report["metrics"], f"{method}, random": report["baselines"].get("random", {})}
        for row, metrics in rows.items():
            for metric in SHOWN.get(report["protocol"], ()):
                if metric in metrics:
                    table[where, row][report["protocol"], metric].append(metrics[metric])
    return table


def _method(file: Path) -> str:
    """Name of the method of the run that an evaluation belongs to."""
    run = next((folder for folder in file.parents if holds_run(folder)), None)
    return "random" if run is None else str(read_record(run)["choices"]["method"])


def format_markdown(table: Table) -> str:
    """One line per data set, label and method; shares in per cent, mean ± deviation over the runs."""
    columns = sorted({column for cells in table.values() for column in cells}, key=_column_order)
    titles = [f"{protocol} {metric.replace('_', ' ')}" for protocol, metric in columns]
    lines = ["| data (label) | method | runs | " + " | ".join(titles) + " |", "|---" * (len(columns) + 3) + "|"]
    for (where, row), cells in sorted(table.items()):
        runs = max(len(values) for values in cells.values())
        texts = [_cell(cells[column]) if column in cells else "" for column in columns]
        lines.append(f"| {where} | {row} | {runs} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _column_order(column: tuple[str, str]) -> tuple[int, int]:
    protocol, metric = column
    return list(SHOWN).index(protocol), SHOWN[protocol].index(metric)


def _cell(values: list[float]) -> str:
    mean = f"{100 * np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.1f}"
