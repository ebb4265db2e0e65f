"""Lists of labelled videos, in the forms in which such splits are published."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ssl_video.utils.errors import InputError

SHOWN = 5  # names in a message


def read_label_list(file: Path, *, key: str = "label_split_file") -> list[str]:
    """Lines of a list of labelled videos, blank ones left out.

    Two forms are read: ``Class/video.avi*label_index`` (VideoSSL; Kinetics lines begin with ``Train/``), and a path
    with the number of frames and the class index behind it, or one of them, or none (TSN and TCL). The indices are not
    used: labels are the manifest's.

    Args:
        file: the list.
        key: what the user calls it, for the messages.

    Raises:
        InputError: there is no such file, it is no text, or there is nothing in it.
    """
    if not file.is_file():
        raise InputError(f"{key}={file} is not a file; check the path.")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        raise InputError(f"{key}={file} is not a text file ({fault}); give a list, a line per video.") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{key}={file} is empty; it needs one labelled video per line.")
    return lines


def listed_places(lines: Sequence[str], paths: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """The places of the videos that a list names, and the lines that name none.

    A path is compared with and without its ending; a bare name also finds the one video of that name in any folder.

    Args:
        lines: of the list.
        paths: N of the videos, relative to the data set's root.

    Returns:
        Ascending places in ``paths``, and lines in their order.
    """
    by_name = _places_by_name(paths)
    found: set[int] = set()
    absent = []
    for line in lines:
        matching = next((by_name[name] for name in _possible_names(line) if name in by_name), None)
        if matching is None:
            absent.append(line)
        else:
            found.update(matching)
    return np.array(sorted(found), dtype=np.int64), absent


def shown(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _places_by_name(paths: Sequence[str]) -> dict[str, list[int]]:
    """Places of each path, of each path without its ending, and of each name that only one path has."""
    by_name: dict[str, list[int]] = {}
    of_stem: dict[str, set[str]] = {}
    for place, path in enumerate(paths):
        for name in {path, str(PurePosixPath(path).with_suffix(""))}:
            by_name.setdefault(name, []).append(place)
        of_stem.setdefault(PurePosixPath(path).stem, set()).add(path)
    alone = {stem: by_name[path] for stem, (path, *others) in of_stem.items() if not others}
    return alone | by_name


def _possible_names(line: str) -> Iterator[str]:
    """What a line may mean by its video, most literal first."""
    name, star, index = line.rpartition("*")
    texts = [name] if star and index.strip().isdigit() else [line]
    for _ in range(2):
        shorter, space, number = texts[-1].rpartition(" ")
        if space and number.isdigit():
            texts.append(shorter.strip())
    for text in texts:
        for path in (text, text.removeprefix("Train/")):
            yield path
            yield str(PurePosixPath(path).with_suffix(""))
