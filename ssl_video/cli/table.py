"""``ssl-video table``: the results below some folders as one table, mean and deviation over seeds."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_video.cli.compare import OF_A_PROTOCOL, differences, protocol_reports
from ssl_video.cli.scorecard import SHOWN
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import holds_run, read_record

Table = dict[tuple[str, str], dict[tuple[str, str], list[float]]]


def main(argv: Sequence[str]) -> int:
    """Prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(prog="ssl-video table", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs and their evaluations")
    given = parser.parse_args(argv)
    try:
        found = list(read_reports(given.folders))
    except InputError as fault:
        print(fault)
        return 2
    print(format_markdown(collect(found)))
    for line in disagreements(found):
        print(f"Warning: {line}", file=sys.stderr)
    return 0


def read_reports(folders: Sequence[Path]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every protocol's object below the folders with the file that holds it, those of scorecards one by one.

    Raises:
        InputError: there is no metrics.json below the folders.
    """
    files = sorted(file for folder in folders for file in folder.rglob("metrics.json"))
    if not files:
        raise InputError(f"There is no metrics.json below {', '.join(map(str, folders))}; run evaluate.py first.")
    for file in files:
        for report in protocol_reports(json.loads(file.read_text())).values():
            yield file, report


def collect(found: Sequence[tuple[Path, Mapping[str, Any]]]) -> Table:
    """Values of every run, by (data set and label, method) and (protocol, metric); random rows stand beside."""
    table: Table = defaultdict(lambda: defaultdict(list))
    for file, report in found:
        method = _method(file)
        rows = {method: report["metrics"], f"{method}, random": report["baselines"].get("random", {})}
        for row, metrics in rows.items():
            for metric in SHOWN.get(report["protocol"], ()):
                if metric in metrics:
                    table[_where(report), row][_column(report), metric].append(metrics[metric])
    return table


def disagreements(found: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[str]:
    """What stands against comparing the results of one column; each fault once."""
    first: dict[tuple[str, str], tuple[Path, Mapping[str, Any]]] = {}
    told: dict[str, str] = {}
    for file, report in found:
        place = (_where(report), _column(report))
        if place not in first:
            first[place] = (file, report)
            continue
        own = {key: report[key] for key in OF_A_PROTOCOL if key in report}
        theirs = {key: first[place][1][key] for key in OF_A_PROTOCOL if key in first[place][1]}
        for line in differences([_bare(report, theirs), _bare(report, own)]):
            fault = line.split(": ", maxsplit=1)[1]
            told.setdefault(fault, f"{file} and {first[place][0]}, {report['protocol']}: {fault}")
    return list(told.values())


def _bare(report: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"protocol": report["protocol"], **values}


def _where(report: Mapping[str, Any]) -> str:
    """Data and label; the hash tells two data sets of one name apart: every folder of videos is `folder`."""
    return f"{report['dataset']} {report['manifest_hash'][:6]} ({report['label']})"


def _column(report: Mapping[str, Any]) -> str:
    variant = report.get("variant", "default")
    return str(report["protocol"] if variant == "default" else f"{report['protocol']} {variant}")


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
        texts = [_cell(cells[column], column[1]) if column in cells else "" for column in columns]
        lines.append(f"| {where} | {row} | {runs} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _column_order(column: tuple[str, str]) -> tuple[int, str, int]:
    protocol = column[0].split(" ")[0]
    return list(SHOWN).index(protocol), column[0], SHOWN[protocol].index(column[1])


def _cell(values: list[float], metric: str) -> str:
    scale = 100 if is_share(metric) else 1
    mean = f"{scale * np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {scale * np.std(values, ddof=1):.1f}"


def is_share(metric: str) -> bool:
    """Whether a metric is a fraction in [0, 1], which tables show in per cent."""
    return metric not in NO_SHARES


NO_SHARES = ("rankme", "effective_rank", "alignment", "uniformity", "median_rank")
