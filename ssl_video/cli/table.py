"""``ssl-video table``: the results below some folders as one table, mean and deviation over seeds."""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_video.cli.compare import OF_A_PROTOCOL, differences, protocol_reports, read_report
from ssl_video.cli.scorecard import SHOWN, short_name
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import holds_run, read_record

Table = dict[tuple[str, str], dict[tuple[str, str], list[float]]]

RANDOM = "random seed:"


@dataclass(frozen=True)
class Result:
    """One protocol's result.

    Attributes:
        file: the ``metrics.json`` that holds it, maybe beside others.
        report: the protocol's object.
        network: which network it speaks of, a run's folder or a checkpoint: several results of one are not several
            runs.
        method: name of its row.
    """

    file: Path
    report: Mapping[str, Any]
    network: str
    method: str


def main(argv: Sequence[str]) -> int:
    """Prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(prog="ssl-video table", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs and their evaluations")
    given = parser.parse_args(argv)
    try:
        reports, warnings = read_reports(given.folders)
    except InputError as fault:
        print(fault, file=sys.stderr)
        return 2
    results = name_results(reports)
    table, left_out = collect(results)
    print(format_markdown(table))
    for line in [*warnings, *left_out, *disagreements(newest_results(results)[0])]:
        print(f"Warning: {line}", file=sys.stderr)
    return 0


# --- reading ----------------------------------------------------------------------------------------------------------


def read_reports(folders: Sequence[Path]) -> tuple[list[tuple[Path, Mapping[str, Any]]], list[str]]:
    """Every protocol's object below the folders, the oldest file first; those of scorecards one by one.

    Returns:
        The file and the object of each, and what is wrong with the files that are left out.

    Raises:
        InputError: there is no metrics.json of ours below the folders.
    """
    if absent := [str(folder) for folder in folders if not folder.is_dir()]:
        raise InputError(f"{', '.join(absent)}: there is no such folder.")
    files = {os.path.abspath(file): file for folder in folders for file in sorted(folder.rglob("metrics.json"))}
    found: list[tuple[Path, Mapping[str, Any]]] = []
    faults = []
    for file in sorted(files.values(), key=lambda file: (file.stat().st_mtime_ns, file)):
        try:
            found += [(file, report) for report in protocol_reports(read_report(file)).values()]
        except InputError as fault:
            faults.append(f"{file} is left out: {fault}")
    if not found:
        where = ", ".join(map(str, folders))
        told = f"There is no metrics.json of ours below {where}; run evaluate.py first."
        raise InputError("\n".join([*faults, told]))
    return found, faults


def name_results(reports: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[Result]:
    """Finds out which network each result speaks of, and the method of its run.

    A file of weights that lies beside no run is a method of its own, by the file's name, with the digest where several
    files have that name.
    """
    runs = {file: _run_above(file) for file, _ in reports}
    checkpoints = [str(report.get("checkpoint", file.parent.name)) for file, report in reports]
    # A result that was written elsewhere belongs to the run whose other results name the same file.
    homes: dict[str, tuple[Path, str]] = {}
    for (file, _), checkpoint in zip(reports, checkpoints, strict=True):
        run = runs[file]
        if run is not None and " sha256:" in checkpoint:
            homes.setdefault(checkpoint, run)
    digests: dict[str, set[str]] = defaultdict(set)
    for (file, _), checkpoint in zip(reports, checkpoints, strict=True):
        if homes.get(checkpoint, runs[file]) is None:
            name, _, digest = checkpoint.partition(" sha256:")
            digests[name].add(digest)
    results = []
    for (file, report), checkpoint in zip(reports, checkpoints, strict=True):
        run = homes.get(checkpoint, runs[file])
        if checkpoint.startswith(RANDOM):
            network, method = f"{checkpoint} {report.get('backbone')}", "random"
        elif run is not None:
            network, method = str(run[0]), run[1]
        else:
            name = short_name({"checkpoint": checkpoint})
            digest = checkpoint.partition(" sha256:")[2][:6]
            network, method = checkpoint, f"{name} {digest}" if len(digests[name]) > 1 else name
        results.append(Result(file, report, network, method))
    return results


def _run_above(file: Path) -> tuple[Path, str] | None:
    """Folder and method of the run that an evaluation belongs to."""
    for folder in Path(os.path.abspath(file)).parents:
        if holds_run(folder) and (method := _method_of(folder)) is not None:
            return folder, method
    return None


def _method_of(run: Path) -> str | None:
    try:
        return str(read_record(run)["choices"]["method"])
    except (InputError, KeyError, TypeError):  # a run.json of something else
        return None


# --- the table --------------------------------------------------------------------------------------------------------


def collect(results: Sequence[Result]) -> tuple[Table, list[str]]:
    """Values of every network, by (data set and label, method) and (protocol, metric); random rows stand beside.

    Args:
        results: the oldest first; of several results of one network by one protocol the newest counts.

    Returns:
        The table, and what was left out.
    """
    table: Table = defaultdict(lambda: defaultdict(list))

    def add(row: str, report: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        for metric in SHOWN.get(report["protocol"], ()):
            if isinstance(metrics.get(metric), int | float):
                table[_where(report), row][_column(report), metric].append(metrics[metric])

    kept, superseded = newest_results(results)
    for result in kept:
        add(result.method, result.report, result.report["metrics"])
    random, unlike = _newest_random_rows(results)
    for result in random:
        add(f"{result.method}, random", result.report, _random_row(result))
    told = [
        f"{old.file} is left out ({columns}): {new.file} is a newer result of the same network."
        for old, new, columns in _by_files(superseded)
    ]
    told += [
        f"the random row of {old.file} is left out ({columns}): {new.file} has a newer one of the same seed."
        for old, new, columns in _by_files(unlike)
    ]
    return table, told


def newest_results(results: Sequence[Result]) -> tuple[list[Result], list[tuple[Result, Result]]]:
    """The newest result of each network by one protocol, and the older ones, each with the one that counts."""
    return _newest(results, lambda result: result.network)


def _newest_random_rows(results: Sequence[Result]) -> tuple[list[Result], list[tuple[Result, Result]]]:
    """As above, of the random rows: one for each seed; runs that were compared with the same network share it.

    Older ones of the same values are not told.
    """

    def network(result: Result) -> Hashable:
        seed = result.report.get("baseline_checkpoints", {}).get("random")
        return (result.method, result.network if seed is None else seed, result.report.get("backbone"))

    beside = [result for result in results if result.method != "random" and _random_row(result)]
    kept, superseded = _newest(beside, network)
    return kept, [(old, new) for old, new in superseded if _random_row(old) != _random_row(new)]


def _random_row(result: Result) -> Mapping[str, Any]:
    row: Mapping[str, Any] = result.report.get("baselines", {}).get("random", {})
    return row


def _newest(
    results: Sequence[Result], network: Callable[[Result], Hashable]
) -> tuple[list[Result], list[tuple[Result, Result]]]:
    def place(result: Result) -> Hashable:
        own = result.report
        return (network(result), own["manifest_hash"], own["label"], own.get("split"), _column(own))

    newest = {place(result): result for result in results}
    kept = list(newest.values())
    return kept, [(result, newest[place(result)]) for result in results if newest[place(result)] is not result]


def _by_files(pairs: Sequence[tuple[Result, Result]]) -> list[tuple[Result, Result, str]]:
    """Pairs of results as pairs of files, each with the columns that it is about."""
    groups: dict[tuple[Path, Path], list[tuple[Result, Result]]] = defaultdict(list)
    for old, new in pairs:
        groups[old.file, new.file].append((old, new))
    return [(*own[0], ", ".join(_column(old.report) for old, _ in own)) for own in groups.values()]


def disagreements(results: Sequence[Result]) -> list[str]:
    """What stands against comparing the results of one column; each fault once."""
    first: dict[tuple[str, str], Result] = {}
    told: dict[str, str] = {}
    for result in results:
        report = result.report
        other = first.setdefault((_where(report), _column(report)), result)
        if other is result:
            continue
        own, theirs = ({key: one[key] for key in OF_A_PROTOCOL if key in one} for one in (report, other.report))
        for line in differences([_bare(report, theirs), _bare(report, own)]):
            fault = line.split(": ", maxsplit=1)[1]
            told.setdefault(fault, f"{result.file} and {other.file}, {report['protocol']}: {fault}")
    return list(told.values())


def _bare(report: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"protocol": report["protocol"], **values}


def _where(report: Mapping[str, Any]) -> str:
    """Data, label, and the split unless it is test.

    The hash tells two data sets of one name apart: every folder of videos is `folder`.
    """
    split = report.get("split", "test")
    label = report["label"] if split == "test" else f"{report['label']}, {split}"
    return f"{report['dataset']} {report['manifest_hash'][:6]} ({label})"


def _column(report: Mapping[str, Any]) -> str:
    variant = report.get("variant", "default")
    name = str(report["protocol"] if variant == "default" else f"{report['protocol']} {variant}")
    # Settings that were changed by hand stand in a column of their own: they are no longer the protocol's.
    return f"{name} ({', '.join(report['changed'])} changed)" if report.get("changed") else name


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
