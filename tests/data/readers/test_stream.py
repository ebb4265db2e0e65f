from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.stream import NoVideoStream, scan
from support import videos

SMALL, LARGE = (80, 96), (96, 128)


def write_two_streams(path: Path, *, default: int | None) -> Path:
    """A small stream with the numbers from 0, then a large one with the numbers from 100."""
    with av.open(str(path), "w", options={"default_mode": "passthrough"}) as container:
        streams = []
        for height, width in (SMALL, LARGE):
            stream = container.add_stream("libx264", rate=25, options=videos.H264.options)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            streams.append(stream)
        for place, stream in enumerate(streams):
            stream.disposition = Disposition.default if place == default else Disposition(0)
        for number in range(6):
            for place, stream in enumerate(streams):
                picture = videos.numbered_frame(100 * place + number, stream.height, stream.width)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("default", "first"), [(0, 0), (1, 100), (None, 100)])
def test_the_default_stream_is_read_or_else_the_largest(tmp_path: Path, default: int | None, first: int) -> None:
    path = write_two_streams(tmp_path / "two.mkv", default=default)
    with av.open(str(path)) as container:
        marked = [s.index for s in container.streams.video if s.disposition & Disposition.default]
    assert marked == ([] if default is None else [default]), "the file is marked as meant"
    assert videos.read_frame_numbers(PyAVReader(path).read([0, 5])) == [first, first + 5]


def test_a_file_with_sound_only_has_no_video_stream(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(NoVideoStream):
        scan(tmp_path / "sound.mp4")


def test_a_table_tells_frames_from_packets(tmp_path: Path) -> None:
    whole = videos.write_video(tmp_path / "whole.mp4", num_frames=40)
    table = scan(whole)
    assert (table.num_frames, table.fps, table.codec, table.is_plain) == (40, 25.0, "h264", True)
    assert table.keyframes.tolist() == [0, 12, 24, 36]
    assert table.keyframe_spacing == 12
    cut = scan(videos.copy_packets(whole, tmp_path / "cut.mp4", start_shift=5))
    assert (cut.num_frames, cut.is_plain) == (35, False), "five packets are decoded but not shown"
    headless = scan(videos.copy_packets(whole, tmp_path / "headless.mp4", drop=[0]))
    assert (headless.num_frames, headless.is_plain) == (28, False), "nothing decodes before the first keyframe"


def test_hidden_vp8_frames_are_not_counted(tmp_path: Path) -> None:
    source = videos.write_video(tmp_path / "source.webm", num_frames=20, encoding=videos.VP8)
    hidden = 7
    with av.open(str(source)) as reading, av.open(str(tmp_path / "hidden.webm"), "w") as writing:
        copy = writing.add_stream_from_template(reading.streams.video[0])
        for place, packet in enumerate(p for p in reading.demux(video=0) if p.size):
            content = bytearray(bytes(packet))
            if place == hidden:
                content[0] &= ~0x10
            changed = av.Packet(bytes(content))
            changed.stream, changed.time_base = copy, packet.time_base
            changed.pts, changed.dts, changed.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
            writing.mux(changed)
    reader = PyAVReader(tmp_path / "hidden.webm")
    shown = [number for number in range(20) if number != hidden]
    assert videos.read_frame_numbers(reader.read(range(reader.num_frames))) == shown


def test_fps_of_a_variable_rate_is_the_average(tmp_path: Path) -> None:
    times = [0, 10, 20, 30, 40, 1040]
    table = scan(videos.write_video(tmp_path / "video.mkv", num_frames=6, times=times))
    assert table.fps == pytest.approx(5 / 1.04), "five intervals in 1.04 s, whatever rate the file declares"


@pytest.mark.parametrize(
    ("pixel_format", "build", "is_seekable"),
    [("yuv444p", b"142", False), ("yuv444p", b"151", True), ("yuv420p", b"142", True), ("yuv420p", b"033", False)],
)
def test_what_old_x264_wrote_is_decoded_from_the_start(
    tmp_path: Path, pixel_format: str, build: bytes, is_seekable: bool
) -> None:
    encoding = videos.Encoding("libx264", pixel_format, {"qp": "10", "preset": "medium"}, keyframe_spacing=10)
    path = videos.write_video(tmp_path / "old.mp4", num_frames=30, encoding=encoding)
    content = path.read_bytes()
    name = content.index(b"x264 - core ") + len(b"x264 - core ")
    path.write_bytes(content[:name] + build + content[name + 3 :])
    table = scan(path)
    assert (len(table.keyframes) > 1, table.is_plain) == (is_seekable, is_seekable)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for reader in (PyAVReader(path), DecordReader(path)):
        np.testing.assert_array_equal(reader.read([25])[0], expected[25])
