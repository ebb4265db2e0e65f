import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ssl_video.data import index
from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.index import find_videos, index_annotated, index_folder
from ssl_video.data.manifest import Manifest
from ssl_video.data.stream_columns import STREAM_COLUMNS
from ssl_video.utils.errors import InputError
from support import videos


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    videos.write_video(root / "run" / "a.mp4", num_frames=30)
    videos.write_video(root / "run" / "deep" / "b.MKV", num_frames=12, fps=10, height=64, width=128)
    videos.turn(videos.write_video(root / "walk" / "c.mp4", num_frames=7), 90)
    (root / "walk" / "broken.avi").write_bytes(b"no video")
    (root / "walk" / "notes.txt").write_text("left alone")
    (root / "walk" / "._c.mp4").write_bytes(b"a hidden file of another system")
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails" / "t.mp4").write_bytes(b"hidden")
    return root


def by_path(manifest: Manifest, name: str) -> dict[str, object]:
    return dict(zip(manifest.column("path"), manifest.column(name), strict=True))


def write_csv(folder: Path, *lines: str) -> Path:
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def test_files_are_described(root: Path) -> None:
    manifest = index_folder(root, num_workers=2, progress=False)
    assert manifest.column("path") == ["run/a.mp4", "run/deep/b.MKV", "walk/broken.avi", "walk/c.mp4"]
    assert by_path(manifest, "num_frames") == {
        "run/a.mp4": 30,
        "run/deep/b.MKV": 12,
        "walk/broken.avi": None,
        "walk/c.mp4": 7,
    }
    segment = manifest.segment(1)
    assert (segment.fps, segment.width, segment.height) == (10.0, 128, 64)
    turned = manifest.segment(3)
    assert (turned.width, turned.height, manifest.column("rotation")[3]) == (80, 96, 90), "as displayed"
    assert (manifest.column("codec")[0], manifest.column("keyframe_spacing")[0]) == ("h264", 12)
    assert manifest.column("bytes")[0] == (root / "run" / "a.mp4").stat().st_size


def test_unreadable_files_are_named_with_their_reason(root: Path) -> None:
    manifest = index_folder(root, progress=False)
    assert manifest.status_counts() == {"ok": 3, "unreadable": 1}
    assert "cannot be opened" in str(by_path(manifest, "reason")["walk/broken.avi"])


def test_labels_are_folder_names_if_every_video_lies_in_one(root: Path, tmp_path: Path) -> None:
    manifest = index_folder(root, progress=False)
    assert manifest.labels("label") == ["run", "run", "walk", "walk"]
    videos.write_video(tmp_path / "run" / "a.mp4", num_frames=2)
    videos.write_video(tmp_path / "b.mp4", num_frames=2)
    assert index_folder(tmp_path, progress=False).label_columns == []


def test_a_csv_gives_labels_splits_and_groups(root: Path, tmp_path: Path) -> None:
    labels = write_csv(
        tmp_path,
        "path,label,split,group,scene",
        "walk/c.mp4,walking,test,7,park",
        "./run/a.mp4,running,train,8,",
        "run/gone.mp4,running,,8,park",
    )
    manifest = index_folder(root, labels=labels, progress=False)
    assert manifest.column("path") == ["walk/c.mp4", "run/a.mp4", "run/gone.mp4"]
    assert manifest.label_columns == ["label", "scene"]
    assert manifest.labels("scene") == ["park", None, "park"]
    assert manifest.column("split") == ["test", "train", None]
    assert manifest.column("group") == ["7", "8", "8"]
    assert manifest.column("status") == ["ok", "ok", "missing"]
    assert manifest.num_left_out == 2, "broken.avi and b.MKV are not in the CSV"


def test_indexing_again_looks_only_into_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        videos.write_video(tmp_path / f"{name}.mp4", num_frames=5)
    first = index_folder(tmp_path, progress=False)
    videos.write_video(tmp_path / "b.mp4", num_frames=9)
    videos.write_video(tmp_path / "c.mp4", num_frames=3)
    probed: list[str] = []
    probe_all = index.probe_all

    def recorded(paths: list[Path], **settings: object) -> object:
        probed.extend(path.name for path in paths)
        return probe_all(paths, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(index, "probe_all", recorded)
    second = index_folder(tmp_path, previous=first, progress=False)
    assert probed == ["b.mp4", "c.mp4"]
    assert by_path(second, "num_frames") == {"a.mp4": 5, "b.mp4": 9, "c.mp4": 3}
    os.utime(tmp_path / "a.mp4", ns=(1, 1))
    third = index_folder(tmp_path, previous=second, progress=False)
    assert probed == ["b.mp4", "c.mp4", "a.mp4"]
    assert third.content_hash() == second.content_hash()


def test_damaged_files_tell_what_decodes(tmp_path: Path) -> None:
    source = videos.write_video(tmp_path / "source.mkv", num_frames=40)
    content = source.read_bytes()
    # A cut Matroska file simply has fewer packets; noise in the last group of pictures is a fault.
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    noise = np.random.default_rng(0).integers(0, 256, len(content), dtype=np.uint8).tobytes()
    at, until = len(content) * 93 // 100, len(content) * 97 // 100
    (tmp_path / "noise.mkv").write_bytes(content[:at] + noise[at:until] + content[until:])
    manifest = index_folder(tmp_path, progress=False)
    status, frames = by_path(manifest, "status"), by_path(manifest, "num_frames")
    assert (status["source.mkv"], frames["source.mkv"]) == ("ok", 40)
    assert status["cut.mkv"] == "ok"
    assert 0 < int(str(frames["cut.mkv"])) < 40
    assert status["noise.mkv"] == "damaged"
    assert 0 < int(str(frames["noise.mkv"])) < 40


def test_image_folders_are_taken_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for number in range(4):
        Image.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(tmp_path / "clip" / f"{number}.png")
    with pytest.raises(InputError, match="holds no videos"):
        find_videos(tmp_path)
    manifest = index_folder(tmp_path, images=True, progress=False)
    segment = manifest.segment(0)
    assert (segment.path, segment.num_frames, segment.width, segment.height) == ("clip", 4, 8, 6)


def test_images_are_looked_into_again_where_one_was_added_or_all_were_written_over(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "clip").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(tmp_path / "clip" / f"{number}.png")
    first = index_folder(tmp_path, images=True, progress=False)
    total = sum(file.stat().st_size for file in (tmp_path / "clip").iterdir())
    assert first.column("bytes") == [total], "of the images, not of the folder's entry, which differs by file system"
    assert index_folder(tmp_path, images=True, previous=first, progress=False).table.equals(first.table)
    before = (tmp_path / "clip").stat()
    for number in range(4):
        with (tmp_path / "clip" / f"{number}.png").open("r+b") as file:
            Image.fromarray(np.zeros((10, 8, 3), dtype=np.uint8)).save(file, "png")
    os.utime(tmp_path / "clip", ns=(before.st_atime_ns, before.st_mtime_ns))
    second = index_folder(tmp_path, images=True, previous=first, progress=False)
    assert second.column("height") == [10]
    Image.fromarray(np.zeros((10, 8, 3), dtype=np.uint8)).save(tmp_path / "clip" / "4.png")
    third = index_folder(tmp_path, images=True, previous=second, progress=False)
    assert third.column("num_frames") == [5]


def test_files_of_an_older_index_are_looked_into_for_their_keyframes(tmp_path: Path) -> None:
    videos.write_video(tmp_path / "a.mp4", num_frames=30)
    new = index_folder(tmp_path, progress=False)
    table = new.table
    for name in STREAM_COLUMNS:
        field = table.schema.field(name)
        table = table.set_column(table.column_names.index(name), field, pa.nulls(1, field.type))
    old = Manifest(table, root=tmp_path)
    assert old.segment(0).keyframes is None
    assert index_folder(tmp_path, previous=old, progress=False).table.equals(new.table)


def test_a_link_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    videos.write_video(tmp_path / "real" / "a.mp4", num_frames=2)
    (tmp_path / "real" / "back").symlink_to(tmp_path)
    assert find_videos(tmp_path) == ["real/a.mp4"]


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a folder"):
        index_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no videos"):
        index_folder(tmp_path)
    with pytest.raises(InputError, match=r"none of the 1 annotated videos .* such as a\.mp4"):
        index_annotated(tmp_path, [AnnotatedVideo("a.mp4")])


@pytest.mark.shared_data
def test_odd_media_are_counted_as_they_decode(shared_data: Path) -> None:
    manifest = index_folder(shared_data / "odd_media", progress=False)
    status = by_path(manifest, "status")
    assert len(manifest) == 25
    assert {path: value for path, value in status.items() if value != "ok"} == {
        "broken_truncated.mp4": "unreadable",
        "empty_header.flv": "unreadable",
        "no_timescale.mp4": "damaged",
        "tiny.wmv": "unreadable",
    }
    frames = by_path(manifest, "num_frames")
    expected = {"nasa_bframes_multistream.mp4": 390, "tiny_1x1.mp4": 5, "no_timescale.mp4": 8, "rot_270.mov": 3}
    assert {path: frames[path] for path in expected} == expected
    portrait = manifest.column("path").index("rotated_portrait.MOV")
    assert (manifest.segment(portrait).width, manifest.segment(portrait).height) == (320, 568)


@pytest.mark.shared_data
def test_packed_frames_of_real_clips_are_counted(shared_data: Path) -> None:
    root = shared_data / "interactions"
    manifest = index_folder(root, labels=root / "labels.csv", progress=False)
    assert manifest.status_counts() == {"ok": 60}
    assert by_path(manifest, "num_frames")["labelled/0_1_4.avi"] == 108, "two of 110 packets repeat a frame"
    assert manifest.num_left_out == 98
