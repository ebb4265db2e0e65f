"""Frames that nobody needs are not decoded, and those that are wanted come out the same to the bit."""

from pathlib import Path

import av
import numpy as np
import pytest

from ssl_video.data.readers import pyav
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.stream import scan
from ssl_video.utils.errors import UnreadableVideo
from support import videos
from support.videos import Encoding

NUM_FRAMES = 60
X264 = {"preset": "fast", "crf": "24", "bf": "3"}
ENCODINGS = {
    "closed.mp4": Encoding("libx264", "yuv420p", X264, keyframe_spacing=30),
    "closed.mkv": Encoding("libx264", "yuv420p", X264, keyframe_spacing=30),
    "closed.ts": Encoding("libx264", "yuv420p", X264, keyframe_spacing=30),
    "open.mp4": Encoding("libx264", "yuv420p", X264 | {"x264-params": "open-gop=1:b-pyramid=strict"}, 15),
    "interlaced.mp4": Encoding("libx264", "yuv420p", X264 | {"flags": "+ildct+ilme"}, keyframe_spacing=30),
    "hevc.mp4": Encoding(
        "libx265", "yuv420p", {"preset": "fast", "crf": "26", "x265-params": "log-level=none:bframes=4"}, 20
    ),
    "hevc_layers.mp4": Encoding(
        "libx265", "yuv420p", {"preset": "fast", "x265-params": "log-level=none:bframes=4:temporal-layers=3"}, 20
    ),
    "mpeg4.mp4": Encoding("mpeg4", "yuv420p", {"qscale": "5", "bf": "2"}, 20),
    "mpeg2.mkv": Encoding("mpeg2video", "yuv420p", {"bf": "2"}, 20),
    "vp9.webm": Encoding("libvpx-vp9", "yuv420p", {"cpu-used": "8", "deadline": "realtime"}, 30),
    "av1.mp4": Encoding("libsvtav1", "yuv420p", {"preset": "12", "crf": "40", "svtav1-params": "lp=1"}, 30),
}
SKIPPED_IN = ("closed.mp4", "closed.mkv", "closed.ts", "open.mp4", "hevc.mp4", "mpeg4.mp4", "mpeg2.mkv")


def moving_noise() -> np.ndarray:
    """uint8 [T, 64, 96, 3]: two layers of noise that move apart, so that a frame without its references shows."""
    rng = np.random.default_rng(0)
    back, front = rng.integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    frames = []
    for number in range(NUM_FRAMES):
        frame = np.roll(back, (number, 2 * number), axis=(0, 1))
        frame[16:48, 24:72] = np.roll(front, -number, axis=1)[16:48, 24:72]
        frames.append(frame // 2 + number)
    return np.stack(frames).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, frames = tmp_path_factory.mktemp("skipping"), moving_noise()
    for name, encoding in ENCODINGS.items():
        videos.write_video(folder / name, frames=frames, encoding=encoding)
    return folder


def decoded_whole(path: Path) -> np.ndarray:
    """uint8 [T, H, W, 3]: every frame, by nothing but PyAV."""
    with av.open(str(path)) as container:
        frames = {frame.pts: frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)}
    return np.stack([frames[time] for time in sorted(frames)])


def count_frames(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the frames that the decoder puts out from now on."""
    came: list[int] = []
    decode = PyAVReader._decode

    def counted(self: PyAVReader, packets):  # type: ignore[no-untyped-def]
        for place, frame in decode(self, packets):
            came.append(place)
            yield place, frame

    monkeypatch.setattr(PyAVReader, "_decode", counted)
    return came


@pytest.mark.parametrize("name", ENCODINGS)
def test_pixels_are_those_of_decoding_everything(folder: Path, name: str) -> None:
    expected = decoded_whole(folder / name)
    rng = np.random.default_rng(0)
    asked = [[number] for number in range(0, NUM_FRAMES, 3)]
    asked += [np.arange(start, NUM_FRAMES, step)[:16].tolist() for start in (0, 7, 21, 35) for step in (1, 2, 5)]
    asked += [sorted(rng.integers(0, NUM_FRAMES, 6).tolist()) for _ in range(10)]
    kept = PyAVReader(folder / name)
    for indices in asked:
        reader = PyAVReader(folder / name, table=kept._table)
        np.testing.assert_array_equal(reader.read(indices), expected[indices], err_msg=str(indices))
        np.testing.assert_array_equal(kept.read(indices), expected[indices], err_msg=f"{indices} after others")
        reader.close()


@pytest.mark.parametrize("name", ENCODINGS)
def test_frames_that_nobody_needs_are_not_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    came = count_frames(monkeypatch)
    PyAVReader(folder / name).read([14])
    assert 14 in came
    if name in SKIPPED_IN:
        assert len(came) < 13, "frames before the wanted one have been skipped"


@pytest.mark.parametrize("num_threads", [2, 3])
def test_several_decoding_threads_give_the_same(folder: Path, num_threads: int) -> None:
    expected = decoded_whole(folder / "closed.mp4")
    for indices in ([14, 16, 18], [55], [3, 40]):
        reader = PyAVReader(folder / "closed.mp4", num_threads=num_threads)
        np.testing.assert_array_equal(reader.read(indices), expected[indices])


def test_a_skipped_frame_that_is_wanted_later_comes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decoded_whole(folder / "closed.mp4")
    reader = PyAVReader(folder / "closed.mp4")
    came = count_frames(monkeypatch)
    reader.read([2])
    for index in range(3, 20):
        np.testing.assert_array_equal(reader.read([index])[0], expected[index])
    assert len(came) < 20 * 8, "most are decoded on from where the reader stands"


def test_interlaced_video_is_decoded_whole(folder: Path) -> None:
    reader = PyAVReader(folder / "interlaced.mp4")
    assert reader._hurries
    reader.read([20])
    assert not reader._hurries


def test_a_frame_that_skipping_loses_is_read_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decoded_whole(folder / "closed.mp4")
    reader = PyAVReader(folder / "closed.mp4")
    decode = PyAVReader._decode

    def losing(self: PyAVReader, packets):  # type: ignore[no-untyped-def]
        for place, frame in decode(self, packets):
            if not (self._hurries and place == 21):
                yield place, frame

    monkeypatch.setattr(PyAVReader, "_decode", losing)
    np.testing.assert_array_equal(reader.read([14, 21, 22]), expected[[14, 21, 22]])


@pytest.mark.parametrize("other", ["hevc.mp4", "open.mp4", "mpeg4.mp4", "vp9.webm"])
def test_the_table_of_another_file_gives_an_error_or_the_right_frames(folder: Path, other: str) -> None:
    table = scan(folder / other)
    expected = decoded_whole(folder / "closed.mp4")
    for indices in ([14], [40, 59]):
        try:
            frames = PyAVReader(folder / "closed.mp4", table=table).read(indices)
        except UnreadableVideo:
            continue
        np.testing.assert_array_equal(frames, expected[indices])


def test_a_table_with_another_stream_is_unreadable(folder: Path) -> None:
    from dataclasses import replace

    table = replace(scan(folder / "closed.mp4"), stream_index=3)
    with pytest.raises(UnreadableVideo, match="no video in stream 3"):
        PyAVReader(folder / "closed.mp4", table=table).read([0])


def test_a_known_table_saves_reading_the_packets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = scan(folder / "closed.mp4")
    monkeypatch.setattr(pyav, "scan", None)
    reader = PyAVReader(folder / "closed.mp4", table=table)
    assert (reader.num_frames, reader.fps) == (NUM_FRAMES, 25.0)
    assert reader.read([3]).shape == (1, 64, 96, 3)


@pytest.mark.slow
@pytest.mark.shared_data
def test_odd_media_read_the_same_with_and_without_skipping(shared_data: Path) -> None:
    from ssl_video.data.probe import probe_video

    rng = np.random.default_rng(0)
    for path in sorted((shared_data / "odd_media").iterdir()):
        if probe_video(path)["status"] != "ok":
            continue
        careful = PyAVReader(path)
        for _ in range(6):
            indices = np.sort(rng.integers(0, careful.num_frames, 3))
            careful._hurries = False
            hurried = PyAVReader(path, table=careful._table)
            np.testing.assert_array_equal(hurried.read(indices), careful.read(indices), err_msg=path.name)
            hurried.close()
