from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_video.data.readers.auto import AutoReader
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.stream import scan
from ssl_video.utils.errors import UnreadableVideo
from support.videos import numbered_frame, read_frame_numbers, write_video

WANTED = [7, 3, 3, 11]


def test_a_video_comes_as_decord_gives_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    frames = AutoReader(path, table=scan(path)).read(WANTED)
    assert read_frame_numbers(frames) == WANTED
    assert np.array_equal(frames, DecordReader(path).read(WANTED))


def test_a_folder_of_images_is_a_video(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(numbered_frame(number, 40, 48)).save(tmp_path / f"{number:03d}.png")
    assert read_frame_numbers(AutoReader(tmp_path).read(WANTED)) == WANTED


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(UnreadableVideo):
        AutoReader(tmp_path / "a.mp4")
