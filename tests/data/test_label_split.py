"""Which videos keep their label: the rule of TCL, and lists in the forms of VideoSSL and TCL."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_video.data.label_split import LabelSplit, class_wise_rows, split_labels
from ssl_video.data.manifest import Manifest
from ssl_video.data.splits import class_indices
from ssl_video.utils.errors import InputError

SIZES = {"Surfing": 40, "Archery": 21, "Diving": 7}  # order of first appearance is not that of the alphabet


def made(*, unlabeled: int = 0, test: int = 0) -> Manifest:
    named = [(label, f"{label}/v_{number:02d}.avi") for label, size in SIZES.items() for number in range(size)]
    named += [(None, f"loose/{number}.avi") for number in range(unlabeled)]  # type: ignore[list-item]
    common = {"num_frames": 30, "fps": 25.0, "width": 8, "height": 8, "rotation": 0, "codec": "h264"}
    common |= {"keyframe_spacing": 12, "bytes": 1, "modified_ns": 1}
    records: list[dict[str, Any]] = [
        {**common, "path": path, "label": label, "split": "train"} for label, path in named
    ]
    records += [{**common, "path": f"Diving/t_{n}.avi", "label": "Diving", "split": "test"} for n in range(test)]
    return Manifest.from_records(records, root=Path("/videos"), label_columns=["label"])


def split(manifest: Manifest, **changes: Any) -> LabelSplit:
    labels, names = class_indices(manifest, "label")
    rows = np.flatnonzero([value == "train" for value in manifest.column("split")])
    arguments: dict[str, Any] = {"rows": rows, "labels": labels, "class_names": names, "label_fraction": 0.1}
    return split_labels(manifest, **(arguments | changes))


def written(folder: Path, *lines: str) -> Path:
    file = folder / "labelled.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


# --- drawn ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2, 0.3, 0.5, 0.9, 1.0])
def test_every_class_gives_up_the_floor_of_its_share(fraction: float) -> None:
    manifest = made()
    drawn = split(manifest, label_fraction=fraction)
    labels = manifest.labels("label")
    for label, size in SIZES.items():
        kept = sum(labels[row] == label for row in drawn.labeled)
        assert kept == size - int(size * round(1 - fraction, 4)), label
    assert sorted([*drawn.labeled, *drawn.unlabeled]) == list(range(len(manifest)))
    assert drawn.family == "class"


def test_draw_is_that_of_the_released_code() -> None:
    """One seeding, one draw per class in order of first appearance, of those to be hidden."""
    random.seed(3)
    hidden: list[int] = []
    start = 0
    for size in SIZES.values():
        hidden += random.sample(range(start, start + size), int(size * 0.95))
        start += size
    assert split(made(), label_fraction=0.05, label_seed=3).unlabeled.tolist() == sorted(hidden)


def test_draw_depends_on_its_seed_alone() -> None:
    state = random.getstate()
    first, again, other = (split(made(), label_seed=seed).labeled.tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert random.getstate() == state


def test_videos_without_label_are_unlabelled() -> None:
    manifest = made(unlabeled=5, test=3)
    drawn = split(manifest, label_fraction=1.0)
    assert [manifest.segment(int(row)).path.split("/")[0] for row in drawn.unlabeled] == ["loose"] * 5
    assert len(drawn.labeled) == sum(SIZES.values())


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="label_fraction=10"):
        class_wise_rows(np.arange(3), np.zeros(3, dtype=np.int64), label_fraction=10, label_seed=0)


def test_a_class_left_without_labels_is_named() -> None:
    with pytest.raises(InputError, match=r"3 of 3 classes .*: Archery, Diving, Surfing.*allow_missing_classes=true"):
        split(made(), label_fraction=0.0)
    assert len(split(made(), label_fraction=0.0, allow_missing_classes=True).labeled) == 0


# --- listed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "{path}.avi*3",  # VideoSSL
        "Train/{path}.avi*3",  # VideoSSL, Kinetics
        "Train/{path}.mp4*12",  # another container
        "{path} 117 3",  # TSN and TCL: frames, class
        "{path}.avi 3",
        "{path}.avi",
        "{path}",
    ],
)
def test_forms_of_a_line(tmp_path: Path, line: str) -> None:
    manifest = made()
    names = ["Surfing/v_03", "Archery/v_20", "Diving/v_00"]
    listed = split(manifest, label_split_file=written(tmp_path, *(line.format(path=name) for name in names), ""))
    assert [manifest.segment(int(row)).path for row in listed.labeled] == [f"{name}.avi" for name in names]
    assert len(listed.unlabeled) == len(manifest) - 3
    assert listed.family == "file:labelled.txt"


def test_a_bare_name_finds_the_one_video_of_that_name(tmp_path: Path) -> None:
    manifest = made(unlabeled=2, test=2)
    listed = split(manifest, label_split_file=written(tmp_path, "v_39 50 2"), allow_missing_classes=True)
    assert [manifest.segment(int(row)).path for row in listed.labeled] == ["Surfing/v_39.avi"]
    with pytest.raises(InputError, match="names 1 of 1 videos that are not in the data set: v_00 50 2"):
        split(manifest, label_split_file=written(tmp_path, "v_00 50 2"))  # in three classes


def test_a_class_that_a_list_leaves_out(tmp_path: Path) -> None:
    """The 5 % list of VideoSSL has no clip of CliffDiving."""
    file = written(tmp_path, "Surfing/v_00.avi*2", "Archery/v_00.avi*0")
    with pytest.raises(InputError, match=r"1 of 3 classes without a labelled training video: Diving"):
        split(made(), label_split_file=file)
    assert len(split(made(), label_split_file=file, allow_missing_classes=True).labeled) == 2


def test_absent_videos_are_counted_and_named(tmp_path: Path) -> None:
    file = written(tmp_path, "Surfing/v_00.avi*2", *(f"Surfing/none_{number}.avi*2" for number in range(7)))
    with pytest.raises(InputError, match=r"names 7 of 8 videos that are not in the data set: Surfing/none_0.avi\*2, "):
        split(made(), label_split_file=file)


def test_test_videos_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "Surfing/v_00.avi*2", "Archery/v_00.avi*0", "Diving/t_1.avi*1")
    with pytest.raises(InputError, match=r"names 1 videos outside the training part: Diving/t_1.avi"):
        split(made(test=3), label_split_file=file)


def test_missing_and_empty_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        split(made(), label_split_file=tmp_path / "none.txt")
    with pytest.raises(InputError, match="is empty"):
        split(made(), label_split_file=written(tmp_path, "", " "))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is not a text file"):
        split(made(), label_split_file=tmp_path / "binary.txt")
