"""Splits are drawn as they always were: published splits must not change with how rows are counted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_video.data.manifest import Manifest
from ssl_video.data.splits import class_indices, split_rows
from ssl_video.utils.errors import InputError


def manifest(records: Sequence[dict[str, Any]], labels: Sequence[str] = ("label",)) -> Manifest:
    return Manifest.from_records(records, root=Path("/videos"), label_columns=labels)


def split(of: Manifest, **changes: Any) -> dict[str, list[int]]:
    settings: dict[str, Any] = {"label": "label", "test_fraction": 0.3, "split_seed": 0, "test_groups": None, **changes}
    return {name: rows.tolist() for name, rows in split_rows(of, **settings).items()}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.9])
def test_the_drawn_part_is_that_of_sorted_names(seed: int, fraction: float) -> None:
    names = [f"{number * 7919 % 503}é{chr(0x1F600 + number % 5)}" for number in range(120)]
    records = [
        {
            "path": f"{name}.mp4",
            "start_seconds": float(part),
            "group": f"g{number}" if number % 3 else None,
            "label": "a",
        }
        for number, name in enumerate(names)
        for part in range(1 + number % 2)
    ]
    of = manifest(records)
    units = [f"video {r['path']}" if r["group"] is None else f"group {r['group']}" for r in records]
    shuffled = np.random.default_rng(seed).permutation(sorted(set(units)))
    test = set(shuffled[: max(1, round(fraction * len(set(units))))].tolist())
    expected = [row for row, unit in enumerate(units) if unit in test]
    assert split(of, test_fraction=fraction, split_seed=seed)["test"] == expected


def test_rows_without_a_split_are_for_training() -> None:
    rows = [{"path": f"{n}.mp4", "split": value} for n, value in enumerate(["test", None, "val", "train"])]
    assert split(manifest(rows)) == {"train": [1, 3], "val": [2], "test": [0]}


def test_groups_are_named() -> None:
    of = manifest([{"path": f"{n}.mp4", "group": value} for n, value in enumerate(["1", None, "2", "1"])])
    assert split(of, test_groups=[1]) == {"train": [1, 2], "val": [], "test": [0, 3]}
    with pytest.raises(InputError, match=r"names \['3'\], which no video has; the groups are \['1', '2'\]"):
        split(of, test_groups=[1, 3])


def test_without_labels_all_is_for_training() -> None:
    of = manifest([{"path": "a.mp4"}, {"path": "b.mp4"}], labels=())
    assert split(of, label=None) == {"train": [0, 1], "val": [], "test": []}
    with pytest.raises(InputError, match="both excluded"):
        split(of, test_fraction=1.0)


def test_classes_are_numbered_by_their_names() -> None:
    values = ["walk", None, "Run", "älter", "walk", "jump"]
    of = manifest([{"path": f"{number}.mp4", "label": value} for number, value in enumerate(values)])
    labels, names = class_indices(of, "label")
    assert names == sorted({value for value in values if value is not None})
    assert [None if label < 0 else names[label] for label in labels] == values
    assert labels.dtype == np.int64
    nothing, no_names = class_indices(manifest([{"path": "a.mp4"}]), "label")
    assert (nothing.tolist(), no_names) == ([-1], [])
