"""Which training videos keep their label in semi-supervised learning: drawn class by class, or named by a file.

Published numbers of one "share of labels" come from different families of splits (drawn class-wise from a seed, the
unbalanced lists of VideoSSL, balanced lists), which are different tasks; so a split carries the name of its family.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.manifest import Manifest
from ssl_video.utils.errors import InputError
from ssl_video.utils.label_list import listed_places, read_label_list, shown

Rows = NDArray[np.int64]


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


def listed_rows(manifest: Manifest, lines: Sequence[str], *, rows: Rows, file: Path) -> Rows:
    """Ascending rows of the videos that a list names.

    A path is compared with and without its ending; a bare name also finds the one video of that name in any folder.

    Raises:
        InputError: videos that the manifest doesn't have, or that lie outside the training part.
    """
    found, absent = listed_places(lines, manifest.column("path"))
    if absent:
        raise InputError(
            f"label_split_file={file} names {len(absent)} of {len(lines)} videos that are not in the data set: "
            f"{shown(absent)}. Paths are relative to dataset.root; give the list of this data set, or the missing "
            "videos."
        )
    foreign = [manifest.segment(row).path for row in np.setdiff1d(found, rows).tolist()]
    if foreign:
        raise InputError(
            f"label_split_file={file} names {len(foreign)} videos outside the training part: {shown(foreign)}. To "
            "train on test videos would be cheating; give the list of this split."
        )
    return found


def _refuse_missing_classes(labeled: Rows, class_names: Sequence[str], *, family: str) -> None:
    missing = [class_names[index] for index in np.setdiff1d(np.arange(len(class_names)), labeled)]
    if missing:
        raise InputError(
            f"The split of labels ({family}) leaves {len(missing)} of {len(class_names)} classes without a labelled "
            f"training video: {shown(missing)}. Raise label_fraction, give another label_split_file, or set "
            "semi.allow_missing_classes=true to go on without them."
        )
