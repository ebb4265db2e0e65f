"""Names in published lists; what a training run makes of them stands in tests/data/test_label_split.py."""

from pathlib import Path

import pytest

from ssl_video.utils.errors import InputError
from ssl_video.utils.label_list import listed_places, read_label_list, shown

PATHS = ["Archery/v_1.avi", "Diving/v_1.avi", "Diving/v_2.avi", "Diving/v 3 7.mp4"]


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("Archery/v_1.avi*0", 0),
        ("Train/Diving/v_1.mp4*17", 1),
        ("Diving/v_2 120 3", 2),
        ("v_2", 2),
        ("Diving/v 3 7 120 3", 3),
        ("Diving/v 3 7.mp4", 3),
    ],
)
def test_forms_of_a_line(line: str, place: int) -> None:
    places, absent = listed_places([line], PATHS)
    assert (places.tolist(), absent) == ([place], [])


def test_name_of_two_folders_is_none_of_them() -> None:
    places, absent = listed_places(["v_1", "Diving/v_2", "Diving/v_9*3"], PATHS)
    assert (places.tolist(), absent) == ([2], ["v_1", "Diving/v_9*3"])


def test_segments_of_one_file_are_all_meant() -> None:
    assert listed_places(["a.mp4", "a.mp4"], ["b.mp4", "a.mp4", "a.mp4"])[0].tolist() == [1, 2]


def test_faulty_files_are_named_by_their_key(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, message in (("empty.txt", "is empty"), ("binary.txt", "not a text file"), ("none.txt", "not a file")):
        with pytest.raises(InputError, match=rf"evaluation\.label_lists=.*{name} .*{message}"):
            read_label_list(tmp_path / name, key="evaluation.label_lists")


def test_message_shows_the_first_names() -> None:
    assert shown(["a", "b"]) == "a, b"
    assert shown(list("abcdefg")) == "a, b, c, d, e, …"
