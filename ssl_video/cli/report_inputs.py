"""Reading what a page is made of from the folders of runs and evaluations."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ssl_video.report.contents import Evaluation, Predictions, Run
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import holds_run, read_record

_PREDICTION, _NEIGHBOURS, _NEIGHBOUR_LABELS = "_prediction", "_neighbours", "_neighbour_labels"


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs with different names, in the order given.

    Raises:
        InputError: a folder that is neither a training run nor an evaluation, or is given twice.
    """
    again = [name for name, count in Counter(folder.resolve() for folder in folders).items() if count > 1]
    if again:
        raise InputError(f"{again[0]} is given twice; give each run once.")
    read = [_read_run(folder) for folder in folders]
    names = _unique([_short_name(run, folder) for run, folder in zip(read, folders, strict=True)], folders)
    return [
        Run(name, run.record, run.curves, run.evaluations, run.notes) for name, run in zip(names, read, strict=True)
    ]


def _read_run(folder: Path) -> Run:
    trained = holds_run(folder)
    own = [folder] if (folder / "metrics.json").is_file() else []
    below = [file.parent for file in (folder / "evaluations").glob("*/metrics.json")]
    if not trained and not own:
        raise InputError(_nothing_in(folder))
    notes: list[str] = []
    folders = sorted([*own, *below], key=lambda path: ((path / "metrics.json").stat().st_mtime_ns, path.name))
    evaluations = [found for path in folders if (found := _read_evaluation(path, notes)) is not None]
    curves = _read_curves(folder / "metrics.csv", notes) if trained else {}
    if not curves and not evaluations:
        raise InputError(
            f"{folder} holds no result yet: neither metrics.csv of a training nor a readable metrics.json."
        )
    record = read_record(folder) if trained else _record_of(folder)
    return Run("", record, curves, evaluations, notes)


def _nothing_in(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is no folder; give the folder of a training run or of an evaluation."
    below = sorted({file.parent for name in ("run.json", "metrics.json") for file in folder.glob(f"*/{name}")})
    hint = f" Below it there are {', '.join(map(str, below[:3]))}." if below else ""
    return (
        f"{folder} holds no result: neither run.json of a training run nor metrics.json of an evaluation.{hint} "
        "Give such a folder."
    )


def run_folder_of(folder: Path) -> Path | None:
    """The training run that a folder is or belongs to."""
    return next((one for one in (folder, *folder.resolve().parents[:2]) if holds_run(one)), None)


def _record_of(evaluation: Path) -> dict[str, Any]:
    """What is known of the training of an evaluation's checkpoint, where its run lies around it."""
    run = run_folder_of(evaluation)
    return {} if run is None else read_record(run)


def _read_evaluation(folder: Path, notes: list[str]) -> Evaluation | None:
    file = folder / "metrics.json"
    try:
        report = json.loads(file.read_text())
    except (OSError, ValueError) as fault:
        notes.append(f"{folder.name}/metrics.json cannot be read ({fault}).")
        return None
    if not isinstance(report, dict) or "protocol" not in report:
        notes.append(f"{folder.name}/metrics.json is no result of evaluate.py: it names no protocol.")
        return None
    predictions = _read_predictions(folder / "predictions.parquet", notes)
    features = _read_features(folder / "features.safetensors", notes)
    return Evaluation(report, predictions, features)


def _read_predictions(file: Path, notes: list[str]) -> Predictions | None:
    if not file.is_file():
        return None
    try:
        columns: dict[str, list[Any]] = pq.read_table(file).to_pydict()
        paths, labels = columns["path"], columns["label"]
    except (OSError, pa.ArrowException, KeyError) as fault:
        notes.append(f"{file.parent.name}/{file.name} cannot be read ({fault}).")
        return None
    return Predictions(
        paths=paths,
        labels=labels,
        predicted={_stem(name, _PREDICTION): column for name, column in columns.items() if name.endswith(_PREDICTION)},
        neighbours={_stem(name, _NEIGHBOURS): column for name, column in columns.items() if name.endswith(_NEIGHBOURS)},
        neighbour_labels={
            _stem(name, _NEIGHBOUR_LABELS): column
            for name, column in columns.items()
            if name.endswith(_NEIGHBOUR_LABELS)
        },
    )


def _stem(name: str, ending: str) -> str:
    return name.removesuffix(ending)


def _read_features(file: Path, notes: list[str]) -> np.ndarray | None:
    if not file.is_file():
        return None
    try:
        features: np.ndarray = load_file(file)["features"]
    except (OSError, SafetensorError, KeyError) as fault:
        notes.append(f"{file.parent.name}/{file.name} cannot be read ({fault}).")
        return None
    return features


def _read_curves(file: Path, notes: list[str]) -> dict[str, np.ndarray]:
    """Columns of ``metrics.csv``; what is no number is nan."""
    if not file.is_file():
        notes.append("there is no metrics.csv, so no training curves.")
        return {}
    with file.open(newline="") as stream:
        # A kill in the middle of an append leaves half a line.
        rows = [row for row in csv.DictReader(stream) if row.get("step") and None not in row.values()]
    if not rows:
        notes.append("metrics.csv has no rows yet, so no training curves.")
        return {}
    return {name: np.array([_number(row[name]) for row in rows]) for name in rows[0] if name is not None}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _short_name(run: Run, folder: Path) -> str:
    if run.record:
        return str(run.record.get("choices", {}).get("method", folder.name))
    checkpoint = str(run.evaluations[-1].report.get("checkpoint", ""))
    return "random" if checkpoint.startswith("random") else folder.resolve().name


def _unique(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Names that differ: with the folder's where they do not, and a number where those are the same too."""
    taken: list[str] = []
    for name, folder in zip(names, folders, strict=True):
        full = name if names.count(name) == 1 else f"{name} ({folder.resolve().name})"
        candidate, number = full, 2
        while candidate in taken:
            candidate, number = f"{full} {number}", number + 1
        taken.append(candidate)
    return taken
