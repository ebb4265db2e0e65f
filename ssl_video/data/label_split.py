"""Which training videos keep their label in semi-supervised learning: drawn class by class, or named by a file.

Published numbers of one "share of labels" come from different families of splits (drawn class-wise from a seed, the
unbalanced lists of VideoSSL, balanced lists), which are different tasks; so a split carries the name of its family.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.manifest import Manifest
from ssl_video.utils.errors import InputError

Rows = NDArray[np.int64]
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class LabelSplit:
    """A training part, divided.

    Attributes:
        labeled: ``[M]`` rows of the manifest whose label is used, in ascending order.
        unlabeled: ``[U]`` all other rows of the training part.
        family: which kind of split it is; numbers of different families are not comparable.
    """

    labeled: Rows
    unlabeled: Rows
    family: str


def split_labels(
    manifest: Manifest,
    *,
    rows: Rows,
    labels: Rows,
    class_names: Sequence[str],
    label_fraction: float,
    label_seed: int = 0,
    label_split_file: Path | None = None,
    allow_missing_classes: bool = False,
) -> LabelSplit:
    """Divides the training part.

    Args:
        manifest: the data set.
        rows: ``[R]`` its training part.
        labels: ``[len(manifest)]`` class of every row, -1 where it has none; such rows are never in the labelled part.
        class_names: names of the classes.
        label_fraction: share of each class that keeps its labels, where no file is given.
        label_seed: decides which.
        label_split_file: a list of the labelled videos instead; see ``read_label_list``.
        allow_missing_classes: a class may be left without any label (the 5 % list of VideoSSL has none of CliffDiving).

    Raises:
        InputError: a share outside [0, 1], a class left without labels, or a list that doesn't fit the data.
    """
    if label_split_file is not None:
        labeled = listed_rows(manifest, read_label_list(label_split_file), rows=rows, file=label_split_file)
        labeled, family = labeled[labels[labeled] >= 0], f"file:{label_split_file.name}"
    else:
        labeled, family = class_wise_rows(rows, labels, label_fraction=label_fraction, label_seed=label_seed), "class"
    if not allow_missing_classes:
        _refuse_missing_classes(labels[labeled], class_names, family=family)
    return LabelSplit(labeled=labeled, unlabeled=np.setdiff1d(rows, labeled), family=family)


def class_wise_rows(rows: Rows, labels: Rows, *, label_fraction: float, label_seed: int) -> Rows:
    """The rows that keep their label when every class gives up the same share.

    The rule of TCL's released code (Singh et al., CVPR 2021): one generator is seeded once; class after class, in order
    of first appearance, ``int(n * (1 - label_fraction))`` of its n videos are drawn to be unlabelled.

    Args:
        rows: ``[R]`` the training part, in its order.
        labels: ``[len(manifest)]`` class of every row, -1 for none.
        label_fraction: share that keeps its labels; of a class of n that is n less the floor of the others.
        label_seed: of the draw.

    Returns:
        Ascending rows.
    """
    if not 0 <= label_fraction <= 1:
        raise InputError(
            f"label_fraction={label_fraction} must lie between 0 and 1; it is the share of labels that is used."
        )
    members: dict[int, list[int]] = {}
    for row in rows.tolist():
        if labels[row] >= 0:
            members.setdefault(int(labels[row]), []).append(row)
    generator = random.Random(label_seed)
    # The share is rounded as a decimal first: 1 - 0.9 is 0.09999999999999998, and ten times that would floor to 0.
    hidden_share = round(1 - label_fraction, 10)
    hidden = {row for own in members.values() for row in generator.sample(own, int(len(own) * hidden_share))}
    return np.array(sorted(row for own in members.values() for row in own if row not in hidden), dtype=np.int64)


def read_label_list(file: Path) -> list[str]:
    """Lines of a list of labelled videos, blank ones left out.

    Two forms are read: ``Class/video.avi*label_index`` (VideoSSL; Kinetics lines begin with ``Train/``), and a path
    with the number of frames and the class index behind it, or one of them, or none (TSN and TCL). The indices are not
    used: labels are the manifest's.

    Raises:
        InputError: there is no such file, it is no text, or there is nothing in it.
    """
    if not file.is_file():
        raise InputError(f"label_split_file={file} is not a file; check the path.")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        raise InputError(
            f"label_split_file={file} is not a text file ({fault}); give a list, a line per video."
        ) from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"label_split_file={file} is empty; it needs one labelled video per line.")
    return lines


def listed_rows(manifest: Manifest, lines: Sequence[str], *, rows: Rows, file: Path) -> Rows:
    """Ascending rows of the videos that a list names.

    A path is compared with and without its ending; a bare name also finds the one video of that name in any folder.

    Raises:
        InputError: videos that the manifest doesn't have, or that lie outside the training part.
    """
    by_name = _rows_by_name(manifest.column("path"))
    found: set[int] = set()
    absent = []
    for line in lines:
        matching = next((by_name[name] for name in _possible_names(line) if name in by_name), None)
        if matching is None:
            absent.append(line)
        else:
            found.update(matching)
    if absent:
        raise InputError(
            f"label_split_file={file} names {len(absent)} of {len(lines)} videos that are not in the data set: "
            f"{_shown(absent)}. Paths are relative to dataset.root; give the list of this data set, or the missing "
            "videos."
        )
    training = set(rows.tolist())
    foreign = [manifest.segment(row).path for row in sorted(found - training)]
    if foreign:
        raise InputError(
            f"label_split_file={file} names {len(foreign)} videos outside the training part: {_shown(foreign)}. To "
            "train on test videos would be cheating; give the list of this split."
        )
    return np.array(sorted(found), dtype=np.int64)


def _rows_by_name(paths: Sequence[str]) -> dict[str, list[int]]:
    """Rows of each path, of each path without its ending, and of each name that only one path has."""
    by_name: dict[str, list[int]] = {}
    of_stem: dict[str, set[str]] = {}
    for row, path in enumerate(paths):
        for name in {path, str(PurePosixPath(path).with_suffix(""))}:
            by_name.setdefault(name, []).append(row)
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


def _refuse_missing_classes(labeled: Rows, class_names: Sequence[str], *, family: str) -> None:
    missing = [class_names[index] for index in np.setdiff1d(np.arange(len(class_names)), labeled)]
    if missing:
        raise InputError(
            f"The split of labels ({family}) leaves {len(missing)} of {len(class_names)} classes without a labelled "
            f"training video: {_shown(missing)}. Raise label_fraction, give another label_split_file, or set "
            "semi.allow_missing_classes=true to go on without them."
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
