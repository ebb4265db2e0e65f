from pathlib import Path

import pytest

from ssl_video.data.annotations.kinetics100 import read_kinetics100
from ssl_video.data.index import index_annotated
from ssl_video.utils.errors import InputError
from support.archives import make_kinetics, write

TRAIN = (
    "Train/abseiling/bb-bb_bbbbb_000000_000010.mp4*0\nTrain/petting animal (not cat)/ccccccccccc_000103_000113.mp4*1\n"
)
VAL = "Val/abseiling/ddddddddddd_000007_000017.mp4*0\n"


@pytest.mark.parametrize("layout", ["{split}/{label}/{clip}.mp4", "Train/{clip}.mkv"])
def test_lists_define_the_clips(tmp_path: Path, layout: str) -> None:
    root = make_kinetics(tmp_path / "data", layout=layout)
    lists = {"train_list": write(tmp_path / "t.lst", TRAIN), "val_list": write(tmp_path / "v.lst", VAL)}
    manifest = index_annotated(root, read_kinetics100(root, **lists), progress=False)
    assert manifest.status_counts() == {"ok": 3}
    assert manifest.labels("label") == ["abseiling", "petting animal (not cat)", "abseiling"]
    assert manifest.column("split") == ["train", "train", "val"]
    assert manifest.column("video_id") == ["bb-bb_bbbbb", "ccccccccccc", "ddddddddddd"]


def test_lists_find_clips_in_whole_videos(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path / "data", layout="{id}.mp4")
    video = read_kinetics100(root, train_list=write(tmp_path / "t.lst", TRAIN))[1]
    assert (video.path, video.start_seconds, video.end_seconds) == ("ccccccccccc.mp4", 103.0, 113.0)


def test_class_names_define_the_clips(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path / "data")
    videos = read_kinetics100(root, classes=write(tmp_path / "classes.txt", "petting animal (not cat)\n"))
    assert [video.video_id for video in videos] == ["ccccccccccc", "ccccccccccc", "eeeeeeeeeee"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("abseiling/bb-bb_bbbbb.mp4*0", r"t\.lst, line 3: 'abseiling/bb-bb_bbbbb\.mp4\*0' must read Train/<class>"),
        ("Train/abseiling/fffffffffff_000000_000010.mp4", r"t\.lst, line 3: .* must read"),
        ("Train/../fffffffffff_000000_000010.mp4*9/../x", r"t\.lst, line 3: .* must read"),
        ("Train/running/fffffffffff_000000_000010.mp4*1", r"line 3: class 1 is 'running' here, 'petting"),
        ("Train/abseiling/bb-bb_bbbbb_000000_000010.mp4*0", r"line 3: bb-bb_bbbbb_000000_000010 stands in .*line 1"),
    ],
)
def test_lines_at_fault_are_named(tmp_path: Path, line: str, message: str) -> None:
    root = make_kinetics(tmp_path / "data")
    with pytest.raises(InputError, match=message):
        read_kinetics100(root, train_list=write(tmp_path / "t.lst", f"{TRAIN}{line}\n"))


def test_it_follows_from_files_only(tmp_path: Path) -> None:
    root = make_kinetics(tmp_path / "data")
    file = write(tmp_path / "t.lst", TRAIN)
    with pytest.raises(InputError, match=r"give dataset\.source\.classes=FILE .*not both"):
        read_kinetics100(root)
    with pytest.raises(InputError, match="not both"):
        read_kinetics100(root, classes=file, train_list=file)
    with pytest.raises(InputError, match=r"none\.lst cannot be read"):
        read_kinetics100(root, train_list=tmp_path / "none.lst")
    many = "".join(f"Train/class {n}/fffffffffff_{n:06d}_{n + 1:06d}.mp4*{n}\n" for n in range(101))
    with pytest.raises(InputError, match="name 101 classes; dataset=kinetics100 has 100 at most"):
        read_kinetics100(root, train_list=write(file, many))
