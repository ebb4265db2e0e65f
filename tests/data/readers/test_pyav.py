from pathlib import Path

import av
import numpy as np
import pytest

from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.utils.errors import UnreadableVideo
from support import videos
from support.videos import read_frame_numbers


def test_a_file_that_stops_early_says_how_many_frames_came(tmp_path: Path) -> None:
    whole = videos.write_video(tmp_path / "whole.mp4", num_frames=40)
    with (
        av.open(str(whole)) as reading,
        av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as w,
    ):
        copy = w.add_stream_from_template(reading.streams.video[0])
        for packet in reading.demux(video=0):
            if packet.size:
                packet.stream = copy
                w.mux(packet)
    content = (tmp_path / "front.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) * 6 // 10])
    reader = PyAVReader(cut)
    assert read_frame_numbers(reader.read([3, 9])) == [3, 9]
    with pytest.raises(UnreadableVideo, match=rf"3 of 4 frames came; frame {reader.num_frames - 1} of"):
        reader.read([0, 1, 2, reader.num_frames - 1])
    assert read_frame_numbers(reader.read([5])) == [5], "a failed read must not spoil the next"


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00" * 5000])
def test_what_is_no_video_is_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableVideo, match="cannot be opened") as caught:
        PyAVReader(path)
    assert str(tmp_path) not in str(caught.value), "reasons go into manifests, which name no folder of a machine"


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="No such file"):
        PyAVReader(tmp_path / "video.mp4")


def test_a_far_frame_is_sought_and_a_near_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = PyAVReader(videos.write_video(tmp_path / "video.mp4", num_frames=60))
    sought: list[int] = []
    seek = PyAVReader._seek

    def counted(self: PyAVReader, keyframe: int) -> bool:
        sought.append(keyframe)
        return seek(self, keyframe)

    monkeypatch.setattr(PyAVReader, "_seek", counted)
    reader.read([0, 1, 2])
    assert sought == []
    reader.read([8, 14])
    assert sought == [], "decoding on is cheaper than seeking to the next keyframe"
    reader.read([55])
    assert sought == [48]
    reader.read([3])
    assert sought == [48], "the first keyframe is the start of the file"


def test_false_keyframe_marks_do_no_harm(tmp_path: Path) -> None:
    h263 = videos.Encoding("h263", "yuv420p", {"qmin": "1", "qmax": "1"}, keyframe_spacing=100)
    source = videos.write_video(tmp_path / "source.3gp", num_frames=40, height=144, width=176, encoding=h263)
    path = tmp_path / "false.3gp"
    with av.open(str(source)) as reading, av.open(str(path), "w") as writing:
        copy = writing.add_stream_from_template(reading.streams.video[0])
        for place, packet in enumerate(p for p in reading.demux(video=0) if p.size):
            packet.is_keyframe = place % 10 == 0
            packet.stream = copy
            writing.mux(packet)
    reader = PyAVReader(path)
    assert len(reader._table.keyframes) > 1, "the marks are really there"
    assert read_frame_numbers(reader.read([35, 2, 22])) == [35, 2, 22]


def test_pixels_are_those_that_were_written(tmp_path: Path) -> None:
    written = np.random.default_rng(0).integers(0, 256, (4, 36, 50, 3), dtype=np.uint8)
    path = videos.write_video(tmp_path / "rgb.mkv", frames=written, encoding=videos.H264_RGB)
    np.testing.assert_array_equal(PyAVReader(path).read([2, 0]), written[[2, 0]])
