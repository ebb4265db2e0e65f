from pathlib import Path
from typing import Any

import pytest

from ssl_video.data.annotations.something_something import read_something_something, read_something_something_mini
from ssl_video.data.index import index_annotated
from ssl_video.utils.errors import InputError
from support.archives import PREFIX, make_something_something, write, write_json

HOLDING, POKING = "Holding something next to something", "Poking a stack of something so it falls"


@pytest.mark.parametrize(("prefix", "folder"), [(PREFIX, "labels"), ("", ".")])
def test_the_official_layout_becomes_a_manifest(tmp_path: Path, prefix: str, folder: str) -> None:
    root = make_something_something(tmp_path, prefix=prefix, folder=folder)
    manifest = index_annotated(root, read_something_something(root), progress=False)
    assert manifest.status_counts() == {"ok": 4}
    assert manifest.labels("label") == [HOLDING, POKING, HOLDING, HOLDING]
    assert manifest.column("split") == ["train", "train", "val", "val"]
    assert manifest.column("path")[0] == "20bn-something-something-v2/78687.webm"
    assert manifest.segment(0).num_frames == 24


def test_the_test_part_has_no_labels_and_missing_videos_are_told(tmp_path: Path) -> None:
    root = make_something_something(tmp_path)
    manifest = index_annotated(root, read_something_something(root, splits=["test", "train"]), progress=False)
    assert manifest.labels("label")[0] is None
    assert manifest.column("path")[0] == "20bn-something-something-v2/151225.webm"
    assert manifest.column("status") == ["missing", "ok", "ok"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"id": "5", "template": "Eating [something]"},
            r"entry 2: template 'Eating \[something\]' is, without brackets",
        ),
        ({"id": "5"}, "entry 2: template '' is"),
        ({"template": "Holding [something] next to [something]"}, "entry 2: .* must be an object with an id"),
        ("5", "entry 2: '5' must be an object with an id"),
        ({"id": "../5", "template": "Holding [something] next to [something]"}, r"'\.\./5' must be a video's name"),
        ({"id": "78687", "template": "Holding [something] next to [something]"}, "78687 stands in .*entry 1 already"),
    ],
)
def test_entries_at_fault_are_named(tmp_path: Path, entry: Any, message: str) -> None:
    root = make_something_something(tmp_path)
    good = {"id": 78687, "template": "Holding [something] next to [something]"}
    write_json(root / "labels" / f"{PREFIX}train.json", [good, entry])
    with pytest.raises(InputError, match=message):
        read_something_something(root)


def test_files_at_fault_are_refused(tmp_path: Path) -> None:
    root = make_something_something(tmp_path)
    file = root / "labels" / f"{PREFIX}train.json"
    write_json(file, {"id": "5"})
    with pytest.raises(InputError, match=r"train\.json holds a dict; it must hold a list"):
        read_something_something(root)
    write(file, '[{"id": 5},')
    with pytest.raises(InputError, match=r"train.json cannot be read \(.*line 1"):
        read_something_something(root)
    file.unlink()
    with pytest.raises(InputError, match=r"must hold something-something-v2-train\.json \(or train\.json\)"):
        read_something_something(root)


def lists(folder: Path, train: str, val: str) -> dict[str, Path]:
    return {"train_list": write(folder / "train.txt", train), "val_list": write(folder / "val.txt", val)}


def test_lists_with_class_numbers(tmp_path: Path) -> None:
    root = make_something_something(tmp_path / "data")
    classes = write(tmp_path / "category.txt", f"{POKING}\n{HOLDING}\n")
    given = lists(tmp_path, "42326 24 0\n", "74225 24 1\n999 30 1\n")
    manifest = index_annotated(root, read_something_something_mini(root, **given, classes=classes), progress=False)
    assert manifest.labels("label") == [POKING, HOLDING, HOLDING]
    assert manifest.column("split") == ["train", "val", "val"]
    assert manifest.column("status") == ["ok", "ok", "missing"]


def test_lists_of_bare_ids_take_official_labels(tmp_path: Path) -> None:
    root = make_something_something(tmp_path / "data")
    # A subset may move videos between the parts.
    videos = read_something_something_mini(root, **lists(tmp_path, "42326\n74225\n", "78687\n"))
    assert [video.labels["label"] for video in videos] == [POKING, HOLDING, HOLDING]
    assert [video.split for video in videos] == ["train", "train", "val"]


def test_lists_at_fault_are_refused(tmp_path: Path) -> None:
    root = make_something_something(tmp_path / "data")
    with pytest.raises(InputError, match=r"give dataset\.source\.train_list=FILE and dataset\.source\.val_list=FILE"):
        read_something_something_mini(root, train_list=None, val_list=tmp_path / "val.txt")
    with pytest.raises(InputError, match=r"train\.txt, line 2: '999' is in neither train nor validation"):
        read_something_something_mini(root, **lists(tmp_path, "42326\n999\n", "78687\n"))
    with pytest.raises(InputError, match=r"val\.txt, line 1: 42326 stands in .*train\.txt, line 1"):
        read_something_something_mini(root, **lists(tmp_path, "42326\n", "42326\n"))
    classes = write(tmp_path / "category.txt", f"{POKING}\n{HOLDING}\n")
    for line in ("42326", "42326 24 2", "42326 24 one"):
        with pytest.raises(InputError, match=r"train\.txt, line 1: .* must read <id> <frames> <class number>.*below 2"):
            read_something_something_mini(root, **lists(tmp_path, f"{line}\n", "74225 24 1\n"), classes=classes)
