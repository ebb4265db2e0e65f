from pathlib import Path

import pytest

from ssl_video.data.annotations.hmdb51 import read_hmdb51
from ssl_video.data.index import index_annotated
from ssl_video.utils.errors import InputError
from support import videos

CLIPS = {
    "brush_hair": {
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi": "1",
        "April_09_brush_hair_u_nm_np1_ba_goo_1.avi": "1",
        "Blonde_being_brushed_brush_hair_f_nm_np2_ri_med_0.avi": "2",
    },
    "wave": {"#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi": "0", "20060723sfjffbartsinger_wave_f_cm_np1_ba_med_0.avi": "2"},
}


def lay_out(root: Path, *, split_folder: str = "testTrainMulti_7030_splits") -> Path:
    folder = root / split_folder
    folder.mkdir(exist_ok=True)
    for label, clips in CLIPS.items():
        lines = "".join(f"{name} {tag} \n" for name, tag in clips.items())
        (folder / f"{label}_test_split1.txt").write_text(lines)
    return root


@pytest.mark.parametrize("video_folder", [".", "hmdb51_org"])
@pytest.mark.parametrize("split_folder", [".", "testTrainMulti_7030_splits"])
def test_the_official_layout_becomes_a_manifest(tmp_path: Path, video_folder: str, split_folder: str) -> None:
    lay_out(tmp_path, split_folder=split_folder)
    for label, clips in CLIPS.items():
        for name in clips:
            videos.write_video(tmp_path / video_folder / label / name, num_frames=3, encoding=videos.MPEG4)
    manifest = index_annotated(tmp_path, read_hmdb51(tmp_path), progress=False)
    assert manifest.labels("label") == ["brush_hair"] * 3 + ["wave"], "a clip that the split leaves out is left out"
    assert manifest.column("split") == ["train", "train", "test", "test"]
    assert manifest.column("group") == [
        "April_09_brush_hair",
        "April_09_brush_hair",
        "Blonde_being_brushed_brush_hair",
        "20060723sfjffbartsinger_wave",
    ]
    assert manifest.status_counts() == {"ok": 4}


def test_faults_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold <class>_test_split1\.txt"):
        read_hmdb51(tmp_path)
    lay_out(tmp_path)
    with pytest.raises(InputError, match=r"<class>_test_split2\.txt"):
        read_hmdb51(tmp_path, split=2)
    with pytest.raises(InputError, match="split=0"):
        read_hmdb51(tmp_path, split=0)
    (tmp_path / "testTrainMulti_7030_splits" / "wave_test_split1.txt").write_text("clip.avi 3\n")
    with pytest.raises(InputError, match=r"wave_test_split1\.txt, line 1"):
        read_hmdb51(tmp_path)
