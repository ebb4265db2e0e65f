"""Whole or not there."""

from pathlib import Path

import pytest

from ssl_video.utils.files import write_atomically, write_folder_atomically


def fill(folder: Path) -> None:
    (folder / "a").write_text("new")


def fail(folder: Path) -> None:
    fill(folder)
    raise OSError("disk full")


def test_a_folder_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    write_folder_atomically(target, fill)
    (target / "b").write_text("old")
    write_folder_atomically(target, fill)
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_a_fault_leaves_the_folder_that_was_there(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    write_folder_atomically(target, fill)
    (target / "a").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_folder_atomically(target, fail)
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"], "nothing temporary stays"


def test_a_fault_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, write)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
