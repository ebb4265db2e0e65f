from pathlib import Path

import pytest

from ssl_video.data.annotations.ucf101 import read_ucf101
from ssl_video.data.index import index_annotated
from ssl_video.utils.errors import InputError
from support import videos

TRAIN = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1", "HandstandPushups/v_HandStandPushups_g09_c02.avi 2"]
TEST = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi"]


def lay_out(root: Path, *, split_folder: str = "ucfTrainTestlist", train: list[str] = TRAIN) -> Path:
    folder = root / split_folder
    folder.mkdir(exist_ok=True)
    # The official files end their lines in carriage return and newline.
    (folder / "classInd.txt").write_bytes(b"1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n")
    for split in (1, 2, 3):
        swapped = (train, TEST) if split == 1 else (TEST, train)
        for part, lines in zip(("train", "test"), swapped, strict=True):
            (folder / f"{part}list{split:02d}.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return root


@pytest.mark.parametrize("video_folder", ["UCF-101", "."])
@pytest.mark.parametrize("split_folder", ["ucfTrainTestlist", "."])
def test_the_official_layout_becomes_a_manifest(tmp_path: Path, video_folder: str, split_folder: str) -> None:
    lay_out(tmp_path, split_folder=split_folder)
    for line in [*TRAIN, *TEST[:1]]:
        path = tmp_path / video_folder / line.split()[0]
        videos.write_video(path, num_frames=4, encoding=videos.MPEG4)
    manifest = index_annotated(tmp_path, read_ucf101(tmp_path), progress=False)
    assert manifest.labels("label") == ["ApplyEyeMakeup", "HandstandPushups"] * 2
    assert manifest.column("split") == ["train", "train", "test", "test"]
    assert manifest.column("group")[:2] == ["ApplyEyeMakeup_g08", "HandstandPushups_g09"]
    assert manifest.column("status") == ["ok", "ok", "ok", "missing"]
    assert manifest.segment(0).num_frames == 4


def test_each_split_has_its_own_lists(tmp_path: Path) -> None:
    lay_out(tmp_path)
    first, second = (read_ucf101(tmp_path, split=split) for split in (1, 2))
    assert {video.path for video in first} == {video.path for video in second}
    assert {video.path for video in first if video.split == "train"} == {
        video.path for video in second if video.split == "test"
    }


def test_faults_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold classInd\.txt"):
        read_ucf101(tmp_path)
    lay_out(tmp_path, train=[*TRAIN, "Swimming/v_Swimming_g01_c01.avi 3"])
    with pytest.raises(InputError, match=r"trainlist01\.txt, line 3"):
        read_ucf101(tmp_path)
    with pytest.raises(InputError, match="split=4"):
        read_ucf101(tmp_path, split=4)
    (tmp_path / "ucfTrainTestlist" / "testlist03.txt").unlink()
    with pytest.raises(InputError, match=r"testlist03\.txt cannot be read"):
        read_ucf101(lay_out_without_last(tmp_path), split=3)


def lay_out_without_last(root: Path) -> Path:
    lay_out(root)
    (root / "ucfTrainTestlist" / "testlist03.txt").unlink()
    return root
