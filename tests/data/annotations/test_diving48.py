from pathlib import Path
from typing import Any

import pytest

from ssl_video.data.annotations.diving48 import read_diving48
from ssl_video.data.index import index_annotated
from ssl_video.utils.errors import InputError
from support.archives import make_diving48, write_json


@pytest.mark.parametrize("folder", ["rgb", "videos"])
def test_the_official_layout_becomes_a_manifest(tmp_path: Path, folder: str) -> None:
    root = make_diving48(tmp_path)
    (root / "rgb").rename(root / folder)
    (root / folder / "8Vy_3dlHg2w_00001.mp4").unlink()
    manifest = index_annotated(root, read_diving48(root), progress=False)
    assert manifest.label_columns == ["label", "takeoff", "somersaults", "twists", "position"]
    assert manifest.labels("label") == [
        "Back_15som_05Twis_FREE",
        "Forward_25som_NoTwis_PIKE",
        "Forward_25som_NoTwis_PIKE",
    ]
    assert manifest.labels("position") == ["FREE", "PIKE", "PIKE"]
    assert manifest.column("split") == ["train", "train", "test"]
    assert manifest.column("group") == ["8Vy_3dlHg2w", "8Vy_3dlHg2w", "-mBreTXGAFQ"], "the competition"
    assert manifest.column("status") == ["ok", "missing", "ok"]
    assert manifest.segment(0).num_frames == 24


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"vid_name": "a_00001", "label": 2}, r"label 2 must be in 0\.\.1"),
        ({"vid_name": "a_00001", "label": "Back"}, "label 'Back' must be in"),
        ({"vid_name": "a_00001"}, "must be an object with vid_name and label"),
        ({"vid_name": "../a_00001", "label": 1}, "must be a video's name"),
        ({"vid_name": "a_00001", "label": 1, "start_frame": 9}, "start_frame 9 must be 0"),
        ({"vid_name": "a_00000", "label": 1}, "a_00000 stands in .*entry 1 already"),
    ],
)
def test_entries_at_fault_are_named(tmp_path: Path, entry: Any, message: str) -> None:
    root = make_diving48(tmp_path)
    write_json(root / "Diving48_V2_train.json", [{"vid_name": "a_00000", "label": 0}, entry])
    with pytest.raises(InputError, match=rf"Diving48_V2_train\.json, entry 2: .*{message}"):
        read_diving48(root)


def test_the_vocabulary_is_needed(tmp_path: Path) -> None:
    root = make_diving48(tmp_path)
    write_json(root / "Diving48_vocab.json", [["Back", "15som"]])
    with pytest.raises(InputError, match=r"Diving48_vocab\.json, entry 1: .* must be a list of takeoff, somersaults"):
        read_diving48(root)
    (root / "Diving48_vocab.json").unlink()
    with pytest.raises(InputError, match=r"must hold Diving48_vocab\.json"):
        read_diving48(root)
