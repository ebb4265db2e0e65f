"""Whole or not there."""

from pathlib import Path

import pytest

from ssl_video.utils import files
from ssl_video.utils.files import link_atomically, remove_partial, write_atomically, write_folder_atomically


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


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_second_name_keeps_what_the_first_one_had(
    tmp_path: Path, hard_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    if not hard_links:
        monkeypatch.setattr(files.os, "link", refuse)
    first, second = tmp_path / "first", tmp_path / "second"
    for text in ("one", "two"):
        write_atomically(first, lambda temporary, text=text: _write(temporary, text))  # type: ignore[misc]
        link_atomically(first, second)
        assert second.read_text() == text
    link_atomically(first, second)  # they are one file already
    write_atomically(first, lambda temporary: _write(temporary, "three"))
    assert second.read_text() == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.0123456789ab.partial").touch()
    (tmp_path / "partial").touch()
    remove_partial(tmp_path)
    remove_partial(tmp_path / "not there")
    assert [path.name for path in tmp_path.iterdir()] == ["partial"]
