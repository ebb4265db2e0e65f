"""Which rows of a manifest are trained on and which are asked: by the data set's own split, by group, or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_video.data.manifest import Manifest, numbered, text_order
from ssl_video.utils.errors import InputError

Rows = NDArray[np.int64]
compute: Any = pc  # the stubs refuse plain values


def split_rows(
    manifest: Manifest,
    *,
    label: str | None,
    test_fraction: float,
    split_seed: int,
    test_groups: Sequence[str | int] | None,
    draw_without_labels: bool = False,
) -> dict[str, Rows]:
    """Rows of every split, whatever their status.

    The first rule that applies: named ``test_groups``; the manifest's own ``split`` column; where there are labels, or
    ``draw_without_labels``, a test part drawn by whole groups (or by video, so that segments of one video stay
    together); else all is train.

    Returns:
        ``{"train": [..], "val": [..], "test": [..]}``, each in ascending order; splits that are not there are empty.

    Raises:
        InputError: a named group is not in the data, or nothing is left to train on.
    """
    if test_groups is not None:
        test = _rows_of_groups(manifest, [str(group) for group in test_groups])
    elif (own := manifest.table.column("split")).null_count < len(manifest):
        return {split: _places(own, split, or_null=split == "train") for split in ("train", "val", "test")}
    elif label is not None or draw_without_labels:
        test = _drawn(manifest, test_fraction, split_seed)
    else:
        test = np.zeros(len(manifest), dtype=bool)
    if test.all():
        raise InputError(
            f"test_groups={list(test_groups or [])} and test_fraction={test_fraction} put all {len(manifest)} videos "
            "into the test part; leave some groups for training."
        )
    return {"train": np.flatnonzero(~test), "val": np.empty(0, dtype=np.int64), "test": np.flatnonzero(test)}


def class_indices(manifest: Manifest, label: str | None) -> tuple[NDArray[np.int64], list[str]]:
    """``[len(manifest)]`` class index per row (-1 where there is no label) and the class names, sorted.

    Where the videos have several classes at once there is no such index: all are -1, without names.

    Raises:
        InputError: ``label`` is not a label column of the manifest.
    """
    if label is None:
        return np.full(len(manifest), -1, dtype=np.int64), []
    if label not in manifest.label_columns:
        raise InputError(
            f"dataset.label={label!r} is not a label column of {manifest.root.name}; it has {manifest.label_columns}."
        )
    if manifest.is_multi_label(label):
        return np.full(len(manifest), -1, dtype=np.int64), []
    values, texts = numbered(manifest.table.column(label))
    order = text_order(texts)
    place_of = np.append(_inverse(order), -1)  # the last is that of the number -1
    return place_of[values], [str(text) for text in texts.take(order).to_pylist()]


def _places(column: pa.ChunkedArray[Any], value: str, *, or_null: bool) -> Rows:
    return np.flatnonzero(compute.fill_null(compute.equal(column, value), or_null).to_numpy())


def _inverse(permutation: NDArray[np.int64]) -> NDArray[np.int64]:
    inverse = np.empty_like(permutation)
    inverse[permutation] = np.arange(len(permutation))
    return inverse


def _rows_of_groups(manifest: Manifest, wanted: Sequence[str]) -> NDArray[np.bool_]:
    groups = manifest.table.column("group")
    there = sorted(value for value in groups.unique().to_pylist() if value is not None)
    absent = [group for group in wanted if group not in there]
    if absent:
        raise InputError(
            f"dataset.test_groups names {absent}, which no video has; the groups are {there or 'not given'} "
            "(a CSV with a `group` column names them)."
        )
    is_wanted: NDArray[np.bool_] = compute.is_in(groups, value_set=pa.array(wanted, pa.string())).to_numpy()
    return is_wanted


def _drawn(manifest: Manifest, fraction: float, seed: int) -> NDArray[np.bool_]:
    if not 0 < fraction < 1:
        raise InputError(f"dataset.test_fraction={fraction} must lie between 0 and 1, both excluded.")
    ranks = manifest.unit_ranks()
    number = int(ranks.max(initial=-1)) + 1
    is_test = np.zeros(number, dtype=bool)
    is_test[np.random.default_rng(seed).permutation(number)[: max(1, round(fraction * number))]] = True
    return is_test[ranks]
