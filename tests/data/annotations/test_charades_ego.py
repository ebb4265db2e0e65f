from pathlib import Path

import pytest

from ssl_video.data.annotations.charades_ego import read_charades_ego
from ssl_video.data.index import index_annotated
from ssl_video.utils.errors import InputError
from support.archives import CHARADES, charades_csv, make_charades_ego, write

LOOKING, DRINKING, HOLDING = "Watching/looking outside of a window", "Drinking from a cup", "Holding some clothes"


def test_each_action_is_a_stretch_of_its_video(tmp_path: Path) -> None:
    root = make_charades_ego(tmp_path)
    manifest = index_annotated(root, read_charades_ego(root), progress=False)
    assert manifest.labels("action") == [LOOKING, DRINKING, LOOKING, DRINKING, None, HOLDING]
    first, third = "first_person", "third_person"
    assert manifest.labels("view") == [third, third, third, first, third, first]
    assert manifest.column("video_id") == ["0A8CF"] * 3 + ["0A8CFEGO", "YSKX3", "T5ECUEGO"]
    assert manifest.column("group") == ["C2EN"] * 4 + ["CP6Y", "M7K8"]
    assert manifest.column("split") == ["train"] * 5 + ["test"]
    assert manifest.status_counts() == {"ok": 6}
    segments = [manifest.segment(row) for row in range(6)]
    # 10 frames per second, 40 frames; the third action ends behind the video, as many do.
    assert [(s.first_frame, s.num_frames) for s in segments] == [
        (12, 16),
        (12, 28),
        (30, 10),
        (0, 20),
        (0, 40),
        (4, 32),
    ]


def test_whole_videos_have_no_actions(tmp_path: Path) -> None:
    root = make_charades_ego(tmp_path)
    videos = read_charades_ego(root, whole_videos=True)
    assert [video.video_id for video in videos] == ["0A8CF", "0A8CFEGO", "YSKX3", "T5ECUEGO"]
    assert {video.labels["action"] for video in videos} == {None}
    assert [video.labels["view"] for video in videos][:2] == ["third_person", "first_person"]


def test_actions_without_frames_are_told(tmp_path: Path) -> None:
    root = make_charades_ego(tmp_path)
    rows = [("0A8CF", "C2EN", "No", "c092 1.20 2.80;c106 5.00 6.00;c000 2.00 2.00")]
    write(root / "CharadesEgo" / "CharadesEgo_v1_train.csv", charades_csv(rows))
    first = index_annotated(root, read_charades_ego(root), progress=False)
    assert first.column("status") == ["ok", "empty_segment", "empty_segment", "ok"]
    assert first.column("reason")[1] == "there is no frame from second 5 to second 6 of 40 frames at 10 fps"
    assert first.segment(1).num_frames == 0
    # The next index must not hold it against the file.
    again = index_annotated(root, read_charades_ego(root), progress=False, previous=first)
    assert again.table.equals(first.table)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ("AAAAA", "C2EN", "No", "c999 0.00 1.00"),
            "action 'c999 0.00 1.00' must read c000 <start> <end>, a known class",
        ),
        (("AAAAA", "C2EN", "No", "c092 0.00"), "action 'c092 0.00' must read"),
        (("AAAAA", "C2EN", "No", "c092 zero 1.00"), "action 'c092 zero 1.00' must read"),
        (("AAAAA", "C2EN", "No", "c092 -1 1.00"), "action 'c092 -1 1.00' must read"),
        (("AAAAA", "C2EN", "maybe", "c092 0.00 1.00"), "egocentric 'maybe' must be Yes or No"),
        (("A/../A", "C2EN", "No", "c092 0.00 1.00"), "'A/../A' must be a video's name"),
        (("0A8CF", "C2EN", "No", "c092 0.00 1.00"), "0A8CF stands in .*line 2 already"),
    ],
)
def test_lines_at_fault_are_named(tmp_path: Path, row: tuple[str, str, str, str], message: str) -> None:
    root = make_charades_ego(tmp_path)
    write(root / "CharadesEgo" / "CharadesEgo_v1_train.csv", charades_csv([CHARADES["train"][0], row]))
    with pytest.raises(InputError, match=rf"CharadesEgo_v1_train\.csv, line 3: {message}"):
        read_charades_ego(root)


def test_files_at_fault_are_refused(tmp_path: Path) -> None:
    root = make_charades_ego(tmp_path)
    write(root / "CharadesEgo" / "Charades_v1_classes.txt", "c000 Holding some clothes\nc001\n")
    with pytest.raises(InputError, match=r"Charades_v1_classes\.txt, line 2: 'c001' must read c000 <action>"):
        read_charades_ego(root)
    make_charades_ego(root)
    write(root / "CharadesEgo" / "CharadesEgo_v1_train.csv", "id,actions,subject\n0A8CF,,C2EN\n")
    with pytest.raises(InputError, match="it also needs egocentric"):
        read_charades_ego(root)
    (root / "CharadesEgo" / "CharadesEgo_v1_test.csv").unlink()
    write(root / "CharadesEgo" / "CharadesEgo_v1_train.csv", charades_csv(CHARADES["train"]))
    with pytest.raises(InputError, match=r"must hold CharadesEgo_v1_test\.csv"):
        read_charades_ego(root)
