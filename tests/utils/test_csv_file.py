"""Several processes append to one CSV."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ssl_video.utils.csv_file import append_rows


def test_the_header_comes_once(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    append_rows(file, ("a", "b"), [(1, "x, y")])
    append_rows(file, ("a", "b"), [(2, "z"), (3, 'say "no"')])
    assert file.read_text() == 'a,b\n1,"x, y"\n2,z\n3,"say ""no"""\n'


def test_rows_of_several_writers_stay_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append_rows(file, ("n", "text"), [(number, "x" * 500)] * 3), range(40)))
    lines = file.read_text().splitlines()
    assert lines[0] == "n,text"
    assert sorted(lines[1:]) == sorted(f"{number},{'x' * 500}" for number in range(40) for _ in range(3))
