from pathlib import Path

import pytest

from ssl_video.cli import index
from ssl_video.data.manifest import Manifest
from support import videos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    videos.write_video(root / "run" / "a.mp4", num_frames=10)
    videos.write_video(root / "walk" / "b.mp4", num_frames=20)
    (root / "walk" / "broken.mp4").write_bytes(b"no video")
    return root


def test_a_folder_is_indexed_and_summed_up(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out" / "manifest.parquet"
    assert index.main([str(root), "-o", str(output), "--num-workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "2 videos ok" in printed
    assert "walk/broken.mp4: unreadable: cannot be opened" in printed
    assert "label: walk 2, run 1" in printed
    assert "decord comes from: decord" in printed
    assert len(Manifest.open(output, cache_dir=tmp_path)) == 3


def test_a_second_run_takes_what_is_there(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "manifest.parquet"
    assert index.main([str(root), "-o", str(output)]) == 0
    first = Manifest.open(output, cache_dir=tmp_path).content_hash()

    def nothing(paths: list[Path], **settings: object) -> list[dict[str, object]]:
        assert not paths, "nothing has changed"
        return []

    monkeypatch.setattr("ssl_video.data.index.probe_all", nothing)
    assert index.main([str(root), "-o", str(output)]) == 0
    assert Manifest.open(output, cache_dir=tmp_path).content_hash() == first


def test_wrong_input_is_refused_with_2(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "manifest.parquet"
    assert index.main([str(tmp_path / "nowhere"), "-o", str(output)]) == 2
    assert "must be a folder" in capsys.readouterr().err
    (tmp_path / "labels.csv").write_text("path\n")
    assert index.main([str(root), "-o", str(output), "--labels", str(tmp_path / "labels.csv")]) == 2
    assert not output.exists()
    output.write_text("somebody's file")
    assert index.main([str(root), "-o", str(output)]) == 2
    assert output.read_text() == "somebody's file"
    with pytest.raises(SystemExit) as caught:
        index.main([str(root)])
    assert caught.value.code == 2


def test_files_left_out_are_counted(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.csv").write_text("path,label,split\nrun/a.mp4,run,train\nrun/gone.mp4,run,test\n")
    arguments = [str(root), "-o", str(tmp_path / "manifest.parquet"), "--labels", str(tmp_path / "labels.csv")]
    assert index.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "1 videos ok" in printed
    assert "1 missing" in printed
    assert "2 files left out" in printed
    assert "split: test 1, train 1" in printed
