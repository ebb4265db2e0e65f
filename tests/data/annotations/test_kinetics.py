from pathlib import Path

import pytest

from ssl_video.data.annotations.kinetics import read_kinetics
from ssl_video.data.index import index_annotated
from ssl_video.utils.errors import InputError
from support.archives import KINETICS_TRAIN, KINETICS_VAL, kinetics_csv, make_kinetics, write


@pytest.mark.parametrize("layout", ["{split}/{label}/{clip}.mp4", "{split}/{clip}.mp4", "part_1/{clip}.mkv"])
def test_clips_are_found_in_every_layout(tmp_path: Path, layout: str) -> None:
    root = make_kinetics(tmp_path, layout=layout)
    manifest = index_annotated(root, read_kinetics(root, num_classes=400), progress=False)
    assert manifest.status_counts() == {"ok": 6}
    assert manifest.labels("label") == [row[0] for row in [*KINETICS_TRAIN, *KINETICS_VAL]]
    assert manifest.column("split") == ["train"] * 4 + ["val"] * 2
    assert manifest.column("video_id") == [row[1] for row in [*KINETICS_TRAIN, *KINETICS_VAL]]
    assert manifest.column("segment_id")[2:4] == ["ccccccccccc_000103_000113", "ccccccccccc_000120_000130"]
    assert {manifest.segment(row).num_frames for row in range(6)} == {24}, "a clip that is cut out is taken whole"


def test_clips_of_whole_videos_are_stretches(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path, layout="{split}/{id}.mp4")
    videos = read_kinetics(root, num_classes=400)
    assert [(v.path, v.start_seconds, v.end_seconds) for v in videos[2:4]] == [
        ("train/ccccccccccc.mp4", 103.0, 113.0),
        ("train/ccccccccccc.mp4", 120.0, 130.0),
    ]


def test_missing_clips_are_told(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path)
    (root / "train" / "abseiling" / "aaaaaaaaaaa_000010_000020.mp4").unlink()
    manifest = index_annotated(root, read_kinetics(root, num_classes=400), progress=False)
    assert manifest.status_counts() == {"missing": 1, "ok": 5}
    assert manifest.column("path")[0] == "train/aaaaaaaaaaa_000010_000020.mp4"
    assert manifest.labels("label")[0] == "abseiling"


def test_of_two_files_that_of_the_split_is_taken(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path, layout="{split}/{clip}.mp4")
    (root / "all").mkdir()
    (root / "all" / "ddddddddddd_000007_000017.mp4").write_bytes(b"another copy")
    assert "val/ddddddddddd_000007_000017.mp4" in [video.path for video in read_kinetics(root, num_classes=400)]


@pytest.mark.parametrize("name", ["test.csv", "kinetics600_test.csv", "kinetics_600_test.csv", "kinetics-600_test.csv"])
def test_a_test_part_needs_no_labels(tmp_path: Path, name: str) -> None:
    root = make_kinetics(tmp_path)
    write(root / "annotations" / name, "youtube_id,time_start,time_end,split\nfffffffffff,0.0,10.0,test\n")
    videos = read_kinetics(root, num_classes=600, splits=["train", "val", "test"])
    assert (videos[-1].labels, videos[-1].split, videos[-1].segment_id) == (
        {"label": None},
        "test",
        "fffffffffff_000000_000010",
    )
    assert {video.split for video in read_kinetics(root, num_classes=600)} == {"train", "val"}


def test_annotations_may_lie_elsewhere(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path / "data")
    (root / "annotations").rename(tmp_path / "lists")
    (tmp_path / "lists" / "val.csv").rename(tmp_path / "lists" / "kinetics_700_validate.csv")
    assert len(read_kinetics(root, num_classes=700, annotations=tmp_path / "lists")) == 6
    with pytest.raises(InputError, match=r"must hold train\.csv .*dataset\.source\.annotations=DIR"):
        read_kinetics(root, num_classes=700)


def test_two_annotation_files_are_not_chosen_between(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path)
    write(root / "k600" / "train.csv", kinetics_csv(KINETICS_TRAIN, split="train"))
    with pytest.raises(InputError, match=r"holds annotations.train\.csv and k600.train\.csv; say which"):
        read_kinetics(root, num_classes=400)


def test_classes_of_a_file_are_kept(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path)
    classes = write(tmp_path / "classes.txt", "abseiling\n\n")
    assert {v.labels["label"] for v in read_kinetics(root, num_classes=400, classes=classes)} == {"abseiling"}
    write(classes, "abseiling\nabseilling\n")
    with pytest.raises(InputError, match=r"classes\.txt, line 2: 'abseilling' is no class"):
        read_kinetics(root, num_classes=400, classes=classes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("abseiling,fffffffffff,ten,20,train", r"train\.csv, line 6: time_start 'ten'"),
        ("abseiling,fffffffffff,20,10,train", r"train\.csv, line 6: time_start '20' and time_end '10'"),
        ("abseiling,fffffffffff,-1,10,train", r"train\.csv, line 6: time_start '-1'"),
        ("abseiling,fffffffffff,nan,10,train", r"train\.csv, line 6: time_start 'nan'"),
        (",fffffffffff,0,10,train", r"train\.csv, line 6: label must not be empty"),
        ("abseiling,../../fffff,0,10,train", r"train\.csv, line 6: '\.\./\.\./fffff' must be a video's name"),
        ("abseiling,/etc/passwd,0,10,train", r"train\.csv, line 6: '/etc/passwd' must be a video's name"),
        ("abseiling,aaaaaaaaaaa,10,20,train", r"line 6: aaaaaaaaaaa_000010_000020 stands in .*, line 2 already"),
        ("abseiling,fffffffffff,0", r"train\.csv, line 6: it must have 5 cells"),
    ],
)
def test_lines_at_fault_are_named(tmp_path: Path, line: str, message: str) -> None:
    root = make_kinetics(tmp_path)
    write(root / "annotations" / "train.csv", kinetics_csv(KINETICS_TRAIN, split="train", last=line))
    with pytest.raises(InputError, match=message):
        read_kinetics(root, num_classes=400)


def test_a_clip_of_two_splits_is_refused(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path)
    write(root / "annotations" / "val.csv", kinetics_csv([*KINETICS_VAL, KINETICS_TRAIN[0]], split="val"))
    with pytest.raises(InputError, match=r"val\.csv, line 4: aaaaaaaaaaa_000010_000020 stands in .*train\.csv, line 2"):
        read_kinetics(root, num_classes=400)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path)
    with pytest.raises(InputError, match="name 2 classes, Kinetics-1 has 1; they are those of another edition"):
        read_kinetics(root, num_classes=1)
    write(root / "annotations" / "train.csv", "label,youtube_id,time_end\nabseiling,aaaaaaaaaaa,10\n")
    with pytest.raises(InputError, match=r"train\.csv has the columns .*also needs time_start"):
        read_kinetics(root, num_classes=400)
    (root / "annotations" / "train.csv").write_bytes("label,youtube_id\nhöhe".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_kinetics(root, num_classes=400)
