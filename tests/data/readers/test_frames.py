import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_video.data.readers.frames import FramesReader
from ssl_video.utils.errors import UnreadableVideo
from support.videos import numbered_frame, read_frame_numbers


def write_images(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        Image.fromarray(numbered_frame(number, 40, 48)).save(folder / name)
    return folder


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "clip", ["frame9.png", "frame10.png", "frame11.png"])
    (folder / "notes.txt").write_text("not an image")
    (folder / "cover.png").write_bytes(b"no number, so no frame")
    reader = FramesReader(folder, fps=12.0, table=None)
    assert (reader.num_frames, reader.fps) == (3, 12.0)
    assert read_frame_numbers(reader.read([2, 0, 2])) == [2, 0, 2]


def test_a_zip_is_read_like_its_folder(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "clip", [f"img_{number:05d}.png" for number in range(12)])
    with zipfile.ZipFile(tmp_path / "clip.zip", "w") as archive:
        for image in sorted(folder.iterdir()):
            archive.write(image, f"clip/{image.name}")
    zipped, plain = FramesReader(tmp_path / "clip.zip"), FramesReader(folder)
    np.testing.assert_array_equal(
        zipped.read([11, 4], box=(2, 3, 20, 30), size=(10, 12)), plain.read([11, 4], box=(2, 3, 20, 30), size=(10, 12))
    )
    zipped.close()


def test_grey_images_come_as_three_channels(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    Image.fromarray(np.full((4, 6), 77, dtype=np.uint8)).save(folder / "0.png")
    np.testing.assert_array_equal(FramesReader(folder).read([0]), np.full((1, 4, 6, 3), 77))


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="no numbered images"):
        FramesReader(write_images(tmp_path / "none", ["cover.png"]))
    with pytest.raises(UnreadableVideo, match="same number"):
        FramesReader(write_images(tmp_path / "twice", ["a1.png", "b1.png"]))
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(UnreadableVideo, match="neither a folder nor a zip"):
        FramesReader(tmp_path / "bad.zip")
    broken = write_images(tmp_path / "broken", ["1.png", "2.png"])
    (broken / "2.png").write_bytes(b"no image")
    with pytest.raises(UnreadableVideo, match=r"1 of 2 frames came: image 2\.png"):
        FramesReader(broken).read([0, 1])
