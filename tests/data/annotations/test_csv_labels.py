from pathlib import Path

import pytest

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.annotations.csv_labels import read_csv_labels
from ssl_video.utils.errors import InputError


def write(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


def test_all_columns_are_read(tmp_path: Path) -> None:
    file = write(tmp_path, '\ufeffpath,label,split,group,weather\n"a, b.mp4",run,val,3,\nc/d.mp4,,,,rain\n')
    assert read_csv_labels(file) == [
        AnnotatedVideo("a, b.mp4", {"label": "run", "weather": None}, split="val", group="3"),
        AnnotatedVideo("c/d.mp4", {"label": None, "weather": "rain"}),
    ]


def test_a_column_of_lists_holds_each_class_once(tmp_path: Path) -> None:
    file = write(tmp_path, "path,label,actions[]\na.mp4,run,open; sit;open\nb.mp4,run,\nc.mp4,run,sit\n")
    assert [video.labels["actions"] for video in read_csv_labels(file)] == [["open", "sit"], None, ["sit"]]
    alone = read_csv_labels(write(tmp_path, "path,label[]\na.mp4,open;sit\n"))
    assert alone[0].labels == {"label": ["open", "sit"]}
    with pytest.raises(InputError, match="distinct"):
        read_csv_labels(write(tmp_path, "path,label,label[]\na.mp4,run,run\n"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.mp4,run,train\na.mp4,walk,train", "line 3: path 'a.mp4' stands in line 2"),
        ("a.mp4,run,train\n./a.mp4,walk,train", "line 3: path 'a.mp4' stands in line 2"),
        ("a.mp4,run,training", "line 2: split 'training' must be one of train, val, test"),
        ("a.mp4,run", "line 2: it must have as many cells as the header"),
        ("a.mp4,run,train,more", "line 2: it must have as many cells"),
        (",run,train", "line 2: path must not be empty"),
        ("/a.mp4,run,train", "line 2: path '/a.mp4' must be relative"),
        ("../a.mp4,run,train", "line 2: path '../a.mp4' must be relative"),
    ],
)
def test_rows_at_fault_are_named_by_line(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_csv_labels(write(tmp_path, f"path,label,split\n{rows}\n"))
    assert message in str(caught.value)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    rows = "\n".join(f"{number}.mp4,run,bad" for number in range(9))
    with pytest.raises(InputError, match="and 4 more"):
        read_csv_labels(write(tmp_path, f"path,label,split\n{rows}\n"))


@pytest.mark.parametrize("header", ["path", "label,split", "file,label", "path,label,label", "path,label,"])
def test_columns_are_needed_by_name(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match="it needs distinct, named ones, among them path and label"):
        read_csv_labels(write(tmp_path, f"{header}\n"))


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_csv_labels(tmp_path / "missing.csv")
    with pytest.raises(InputError, match="has no rows"):
        read_csv_labels(write(tmp_path, "path,label\n"))
    with pytest.raises(InputError, match="columns \\[\\]"):
        read_csv_labels(write(tmp_path, ""))
    (tmp_path / "latin.csv").write_bytes("path,label\na.mp4,höhe\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_csv_labels(tmp_path / "latin.csv")
