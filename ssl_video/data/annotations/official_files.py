"""Finding and reading the files that a data set is distributed with."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ssl_video.data.index import find_videos
from ssl_video.utils.errors import InputError


def find_file(root: Path, names: Sequence[str], *, folder: Path | None = None) -> Path:
    """Finds an annotation file.

    Args:
        root: the data set's folder; the file lies in it or in one of its folders.
        names: what the file may be called, the likeliest first.
        folder: look only here.

    Raises:
        InputError: it is not there, or there are several.
    """
    patterns = names if folder is not None else [*names, *(f"*/{name}" for name in names)]
    for pattern in patterns:
        found = sorted((folder or root).glob(pattern))
        if len(found) > 1:
            raise InputError(
                f"{root} holds {' and '.join(str(path.relative_to(root)) for path in found)}; say which with "
                "dataset.source.annotations=DIR."
            )
        if found:
            return found[0]
    where = f"dataset.source.annotations={folder} must hold" if folder else f"dataset.root={root} must hold"
    alternatives = f" (or {', '.join(names[1:])})" if names[1:] else ""
    raise InputError(
        f"{where} {names[0]}{alternatives}{'' if folder else ', itself or in a folder'}; unpack the official "
        "annotations there, or name their folder with dataset.source.annotations=DIR."
    )


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Reads the lines of a text file that are not empty, stripped, with their numbers.

    Raises:
        InputError: the file cannot be read or has no such line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); it must be a text in UTF-8.") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise InputError(f"{file} is empty; unpack the official annotations again.")
    return lines


def read_csv(file: Path, *, needed: Collection[str]) -> list[tuple[int, dict[str, str]]]:
    """Reads the rows of a CSV with a header, with their line numbers.

    Raises:
        InputError: the file cannot be read, a column is missing, or a row has more or fewer cells than the header.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read ({error}); it must be a CSV in UTF-8.") from error
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(f"{file} has the columns {columns}; it also needs {' and '.join(missing)}.")
    for number, row in rows:
        # csv.DictReader files surplus cells under None, and fills missing cells with None.
        if None in row or None in row.values():
            raise InputError(f"{file}, line {number}: it must have {len(columns)} cells, as the header has.")
    return rows


def read_json(file: Path, kind: type[list[Any]] | type[dict[Any, Any]]) -> Any:
    """Reads a JSON file that holds a list or an object.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); unpack the official annotations again.") from error
    if not isinstance(content, kind):
        raise InputError(f"{file} holds a {type(content).__name__}; it must hold a {kind.__name__}.")
    return content


def checked_name(name: Any, *, where: str) -> str:
    """Returns a video's name; InputError where it holds anything but letters, digits, - and _, such as a path."""
    text = str(name)
    if not re.fullmatch(r"[\w-]+", text, flags=re.ASCII):
        raise InputError(f"{where}: {text!r} must be a video's name (letters, digits, - and _); mend that line.")
    return text


class NoRepeats:
    """Remembers where names stand, and refuses one that stands twice."""

    def __init__(self) -> None:
        self._where: dict[str, str] = {}

    def add(self, name: str, *, where: str) -> None:
        """Notes a name; InputError if it was noted before."""
        if name in self._where:
            raise InputError(f"{where}: {name} stands in {self._where[name]} already; remove one of the two.")
        self._where[name] = where


class VideoFiles:
    """The video files under a root, by name without ending, whatever folders they were unpacked into."""

    def __init__(self, root: Path) -> None:
        """Lists the files.

        Raises:
            InputError: the root holds no videos.
        """
        self._paths: dict[str, list[str]] = defaultdict(list)
        for path in find_videos(root):
            self._paths[path.rpartition("/")[2].rpartition(".")[0]].append(path)

    def path(self, name: str, *, split: str = "") -> str | None:
        """Returns a video's path, from a folder that names the split if there are several, or None."""
        candidates = self._paths.get(name, [])
        return min(candidates, key=lambda path: (split not in path.rpartition("/")[0].lower(), path), default=None)
