from pathlib import Path

import numpy as np
import pytest

from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.utils.errors import UnreadableVideo
from support import videos


@pytest.mark.parametrize("width", [2, 16, 48, 64, 70, 96, 97, 130, 144, 146])
def test_narrow_frames_come_without_row_padding(tmp_path: Path, width: int) -> None:
    written = np.random.default_rng(width).integers(0, 256, (3, 8, width, 3), dtype=np.uint8)
    path = videos.write_video(tmp_path / "narrow.mp4", frames=written, encoding=videos.H264_RGB)
    reader = DecordReader(path)
    assert reader.library == "decord"
    np.testing.assert_array_equal(reader.read([2, 0]), written[[2, 0]])


def test_a_file_at_which_decord_stops_is_left_to_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import decord

    path = videos.write_video(tmp_path / "video.mp4", num_frames=10)
    reader = DecordReader(path)

    def stop(self: object) -> None:
        raise decord.DECORDError("Error sending packet.")

    monkeypatch.setattr(decord.VideoReader, "next", stop)
    assert videos.read_frame_numbers(reader.read([7, 3])) == [7, 3]
    assert reader.library == "pyav"


def test_a_file_that_neither_can_read_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(UnreadableVideo):
        DecordReader(path)
    with pytest.raises(UnreadableVideo):
        PyAVReader(path)
