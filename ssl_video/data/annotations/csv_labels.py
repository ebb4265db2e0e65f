"""Labels from a CSV: columns path, label, and if wanted other label columns, split and group."""

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ssl_video.data.annotations.annotated_video import AnnotatedVideo, Label
from ssl_video.utils.errors import InputError

NEEDED_COLUMNS = ("path", "label")
SPLITS = ("train", "val", "test")
# A label column whose name ends so holds lists of classes.
LIST_MARK = "[]"
SEPARATOR = ";"
FAULTS_SHOWN = 5


def read_csv_labels(file: Path) -> list[AnnotatedVideo]:
    """Reads a CSV of labels.

    Every column but path, split and group is a label column. Empty cells are no label, no split, no group. Where a
    video has several classes at once, the column's name ends in `[]` and its cells read `open door;sit down`.

    Args:
        file: the CSV, UTF-8, with a header.

    Returns:
        One video per row, in the file's order.

    Raises:
        InputError: the file cannot be read, a column is missing, or rows are at fault (named by line).
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns = [name.strip() for name in reader.fieldnames or []]
            _check_columns(file, columns)
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"labels file {file} cannot be read ({error}); it must be a CSV in UTF-8.") from error
    if not rows:
        raise InputError(
            f"labels file {file} has no rows; it needs one per video under the header {','.join(columns)}."
        )
    _check_rows(file, rows)
    return [_video(row) for _, row in rows]


def _check_columns(file: Path, columns: list[str]) -> None:
    names = [name.removesuffix(LIST_MARK) for name in columns]
    missing = [name for name in NEEDED_COLUMNS if name not in names]
    if missing or len(set(names)) != len(names) or "" in names:
        raise InputError(
            f"labels file {file} has the columns {columns}; it needs distinct, named ones, among them "
            f"{' and '.join(NEEDED_COLUMNS)} (other label columns, split and group may follow)."
        )


def _check_rows(file: Path, rows: list[tuple[int, dict[str, str]]]) -> None:
    faults: list[str] = []
    line_of: dict[str, int] = {}
    for line, row in rows:
        fault = _fault(row)
        if fault is None:
            path = _normal(row["path"])
            if path in line_of:
                fault = f"path {path!r} stands in line {line_of[path]} already; each video has one row"
            line_of.setdefault(path, line)
        if fault is not None:
            faults.append(f"line {line}: {fault}")
    if faults:
        more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        listed = "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN])
        raise InputError(f"labels file {file} has rows that cannot be used:{listed}{more}")


def _fault(row: Mapping[str, str | None]) -> str | None:
    # csv.DictReader files surplus cells under None, and fills missing cells with None.
    if None in row or None in row.values():
        return "it must have as many cells as the header"
    path, split = row["path"] or "", (row.get("split") or "").strip()
    if not path.strip():
        return "path must not be empty"
    if PurePosixPath(path.strip()).is_absolute() or ".." in PurePosixPath(path.strip()).parts:
        return f"path {path!r} must be relative to the root and stay inside it"
    if split and split not in SPLITS:
        return f"split {split!r} must be one of {', '.join(SPLITS)}, or empty"
    return None


def _normal(path: str) -> str:
    return str(PurePosixPath(path.strip()))


def _video(row: Mapping[str, str]) -> AnnotatedVideo:
    cells = {name: value.strip() or None for name, value in row.items()}
    labels = dict(_label(name, value) for name, value in cells.items() if name not in ("path", "split", "group"))
    return AnnotatedVideo(_normal(row["path"]), labels, split=cells.get("split"), group=cells.get("group"))


def _label(column: str, cell: str | None) -> tuple[str, Label]:
    if not column.endswith(LIST_MARK):
        return column, cell
    classes = [part.strip() for part in (cell or "").split(SEPARATOR) if part.strip()]
    return column.removesuffix(LIST_MARK), list(dict.fromkeys(classes)) or None
