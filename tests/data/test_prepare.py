"""Making one prepared file: which frames it holds, what they show, and what makes it refuse."""

import errno
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ssl_video.data import prepare
from ssl_video.data.line_process import LineProcess
from ssl_video.data.manifest import Segment
from ssl_video.data.motion import read_motion
from ssl_video.data.optical_flow import compute_motion, farneback
from ssl_video.data.prepare import FileToPrepare, PrepareSettings, Stretch, motion_settings, prepare_file
from ssl_video.data.probe import probe_video
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.stream import scan
from ssl_video.utils.errors import InputError, UnreadableVideo
from support.videos import H264_RGB, H265, MPEG2, Encoding, copy_packets, read_frame_numbers, turn, write_video

SMALL = PrepareSettings(short_side=64)


def described(source: Path, **other: Any) -> FileToPrepare:
    """What a manifest would say of a file."""
    found = probe_video(source)
    assert found["status"] == "ok"
    file = FileToPrepare(
        source=source,
        path=other.pop("path", "new.mp4"),
        **{name: found[name] for name in ("num_frames", "fps", "height", "width", "codec")},
        file_bytes=source.stat().st_size if source.is_file() else None,
        modified_ns=source.stat().st_mtime_ns,
    )
    return replace(file, **other)


def prepared(source: Path, tmp_path: Path, settings: PrepareSettings = SMALL, **other: Any) -> Path:
    file = described(source, **other)
    file_bytes = prepare_file(file, tmp_path / "out", settings, motion_folder=tmp_path / "motion")
    target = tmp_path / "out" / file.path
    assert target.stat().st_size == file_bytes
    assert not list((tmp_path / "out").rglob("*.partial"))
    return target


def all_frames(path: Path) -> NDArray[np.uint8]:
    reader = PyAVReader(path)
    try:
        return reader.read(range(reader.num_frames))
    finally:
        reader.close()


def drifting(num_frames: int, *, height: int, width: int, blur: float = 3.0) -> NDArray[np.uint8]:
    """A coloured, textured picture that drifts, uint8 [T, height, width, 3]."""
    noise = np.random.default_rng(0).random((height + 60, width + 2 * num_frames, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), blur)
    texture = (255 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)
    return np.stack([texture[t % 60 :, 2 * t :][:height, :width] for t in range(num_frames)])


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("bframes.mp4", Encoding(options={"qp": "0", "preset": "ultrafast", "bf": "3"}, keyframe_spacing=250)),
        ("rgb.mkv", H264_RGB),
        ("hevc.mp4", H265),
        ("mpeg2.ts", MPEG2),
    ],
)
def test_every_frame_is_there_once_and_in_order(tmp_path: Path, name: str, encoding: Encoding) -> None:
    source = write_video(tmp_path / name, num_frames=70, height=160, width=192, encoding=encoding)
    target = prepared(source, tmp_path)
    numbers = list(range(probe_video(source)["num_frames"]))
    assert len(numbers) >= 69  # the last B-frame of MPEG-2 in a transport stream may be lost in the source
    assert read_frame_numbers(all_frames(target)) == numbers
    other = DecordReader(target)
    assert other.library == "decord"
    assert read_frame_numbers(other.read([3, 68, 33, 16, 15])) == [3, 68, 33, 16, 15]


def test_keyframes_are_regular_and_nothing_else_is_in_the_file(tmp_path: Path) -> None:
    # A change of scene every 5 frames would make x264 set keyframes of its own.
    scenes = np.repeat(np.random.default_rng(0).integers(0, 256, (14, 80, 96, 3), dtype=np.uint8), 5, axis=0)
    target = prepared(write_video(tmp_path / "a.mp4", frames=scenes), tmp_path)
    table = scan(target)
    assert table.keyframes.tolist() == [0, 16, 32, 48, 64]
    assert table.is_plain
    assert (table.codec, table.num_frames, table.fps) == ("h264", 70, 25.0)
    eight = prepared(tmp_path / "a.mp4", tmp_path, replace(SMALL, keyframe_every=8), path="b.mp4")
    assert set(np.diff(scan(eight).keyframes).tolist()) == {8}
    with av.open(str(target)) as container:
        assert container.streams.video[0].pix_fmt == "yuv420p"
    content = target.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # a player, or a network disk, reads the head first


def test_sound_is_dropped(tmp_path: Path) -> None:
    source = write_video(tmp_path / "silent.mp4", num_frames=20)
    with av.open(str(source)) as reading, av.open(str(tmp_path / "loud.mp4"), "w") as writing:
        copy, sound = writing.add_stream_from_template(reading.streams.video[0]), writing.add_stream("aac", rate=8000)
        for packet in reading.demux(reading.streams.video[0]):
            if packet.size:
                packet.stream = copy
                writing.mux(packet)
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        quiet.sample_rate = 8000
        writing.mux(sound.encode(quiet))
        writing.mux(sound.encode(None))
    with av.open(str(tmp_path / "loud.mp4")) as container:
        assert len(container.streams) == 2
    with av.open(str(prepared(tmp_path / "loud.mp4", tmp_path))) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    # The pictures are written so that turning them sets them upright.
    upright = all_frames(write_video(tmp_path / "upright.mp4", num_frames=20, height=96, width=160))
    stored = np.rot90(upright, k=degrees // 90, axes=(1, 2)).copy()
    source = turn(write_video(tmp_path / "turned.mp4", frames=stored), degrees)
    target = prepared(source, tmp_path)
    found = probe_video(target)
    assert (found["height"], found["width"], found["rotation"]) == (64, 106, 0)
    assert read_frame_numbers(all_frames(target)) == list(range(20))


@pytest.mark.parametrize(
    ("height", "width", "short_side", "size"),
    [
        (256, 340, 128, (128, 170)),
        (240, 320, 128, (128, 170)),
        (1080, 1920, 128, (128, 228)),
        (340, 256, 160, (212, 160)),
        (81, 97, 128, (80, 96)),  # never larger, but even
        (128, 171, 128, (128, 172)),
        (1, 1, 128, (2, 2)),
    ],
)
def test_sizes(height: int, width: int, short_side: int, size: tuple[int, int]) -> None:
    assert PrepareSettings(short_side=short_side).size(height, width) == size


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    source = write_video(tmp_path / "odd.mkv", num_frames=12, height=81, width=97, encoding=H264_RGB)
    target = prepared(source, tmp_path, PrepareSettings())
    assert all_frames(target).shape == (12, 80, 96, 3)
    assert read_frame_numbers(all_frames(target)) == list(range(12))


def test_pixels_are_those_that_a_reader_gives(tmp_path: Path) -> None:
    colour = drifting(24, height=180, width=240, blur=12.0)
    grey = np.repeat(drifting(24, height=180, width=240).mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3)
    # Colour has half the resolution; without it nearly nothing is lost.
    for frames, deviation in ((colour, 4.0), (grey, 1.0)):
        source = write_video(tmp_path / "a.mp4", frames=frames)
        target = prepared(source, tmp_path, replace(SMALL, quality=1))
        wanted = PyAVReader(source).read(range(24), size=(64, 86)).astype(float)
        difference = all_frames(target) - wanted
        # FFmpeg's conversion to RGB rounds down, by about one level, once more than for the source.
        assert np.abs(difference.mean(axis=(0, 1, 2))).max() < 2.0
        assert difference.std() < deviation


def test_a_better_quality_is_larger_and_nearer(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=drifting(24, height=180, width=240))
    wanted = PyAVReader(source).read(range(24), size=(64, 86)).astype(float)
    sizes, errors = [], []
    for quality in (10, 40):
        target = prepared(source, tmp_path, replace(SMALL, quality=quality), path=f"{quality}.mp4")
        sizes.append(target.stat().st_size)
        errors.append(np.abs(all_frames(target) - wanted).mean())
    assert sizes[0] > 2 * sizes[1]
    assert errors[0] < errors[1]


def test_a_usual_file_becomes_smaller(tmp_path: Path) -> None:
    # 3 to 4 kB a frame, as Kinetics' and others' at this size.
    usual = Encoding(options={"crf": "18", "preset": "veryfast"}, keyframe_spacing=250)
    noise = np.random.default_rng(0).normal(0, 6, (40, 256, 340, 1))
    frames = np.clip(drifting(40, height=256, width=340) + noise, 0, 255).astype(np.uint8)
    source = write_video(tmp_path / "a.mp4", frames=frames, encoding=usual)
    assert prepared(source, tmp_path, PrepareSettings()).stat().st_size < 0.6 * source.stat().st_size


def test_equal_settings_give_equal_files(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=drifting(24, height=64, width=32))  # two macroblocks wide
    made = {prepared(source, tmp_path, path=f"{number}.mp4").read_bytes() for number in range(3)}
    assert len(made) == 1


# --- times ------------------------------------------------------------------------------------------------------------

IRREGULAR = [0, 30, 100, 110, 120, 300, 310, 500, 540, 541, 700, 900, 910, 915, 1000, 1300]


def test_irregular_times_become_regular_at_the_same_mean_rate(tmp_path: Path) -> None:
    source = write_video(tmp_path / "vfr.mkv", num_frames=16, times=IRREGULAR)
    target = prepared(source, tmp_path)
    assert read_frame_numbers(all_frames(target)) == list(range(16))
    assert scan(target).fps == pytest.approx(scan(source).fps, rel=1e-9)
    assert len(set(np.diff(scan(target).times).tolist())) == 1


@pytest.mark.parametrize("fps", [1.0, 12.0, 15.0, 23.976023976023978, 29.97002997002997, 59.94005994005994, 14.7606])
@pytest.mark.parametrize("num_frames", [1, 2, 37])
def test_the_frame_rate_stays_to_the_last_digit(tmp_path: Path, fps: float, num_frames: int) -> None:
    # Segments are given in seconds: the same ones must be the same frames.
    source = write_video(tmp_path / "a.mp4", num_frames=num_frames)
    rate = float(SMALL.rate(fps))
    assert rate == pytest.approx(fps, rel=1e-9)
    target = prepared(source, tmp_path, fps=rate)
    assert probe_video(target)["fps"] == rate  # also checked for each file that is made


@pytest.mark.parametrize(("given", "asked"), [(25, 10.0), (25, 25.0), (25, 12.5), (25, 30.0), (30, 29.97)])
def test_a_constant_rate_takes_the_nearest_frames(tmp_path: Path, given: int, asked: float) -> None:
    source = write_video(tmp_path / "a.mp4", num_frames=50, fps=given)
    target = prepared(source, tmp_path, replace(SMALL, fps=asked))
    times = np.arange(50) / given
    number = round(50 / given * asked)
    nearest = [int(np.argmin(np.abs(times - place / asked).round(9))) for place in range(number)]
    assert read_frame_numbers(all_frames(target)) == nearest
    assert scan(target).fps == pytest.approx(asked)


def test_a_constant_rate_goes_by_the_times_of_frames(tmp_path: Path) -> None:
    source = write_video(tmp_path / "vfr.mkv", num_frames=16, times=IRREGULAR)
    target = prepared(source, tmp_path, replace(SMALL, fps=10.0))
    times = np.array(IRREGULAR) / 1000
    number = round(16 / scan(source).fps * 10)
    nearest = [int(np.argmin(np.abs(times - place / 10).round(9))) for place in range(number)]
    assert read_frame_numbers(all_frames(target)) == nearest


# --- other sources ----------------------------------------------------------------------------------------------------


def test_numbered_images_become_a_file(tmp_path: Path) -> None:
    frames = all_frames(write_video(tmp_path / "a.mp4", num_frames=20, height=100, width=120))
    folder = tmp_path / "images"
    folder.mkdir()
    for number, picture in enumerate(frames):
        Image.fromarray(picture).save(folder / f"{number:05d}.png")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
        for picture in sorted(folder.iterdir()):
            packed.write(picture, picture.name)
    for source in (folder, tmp_path / "images.zip"):
        target = prepared(source, tmp_path, fps=12.0)
        assert read_frame_numbers(all_frames(target)) == list(range(20))
        assert scan(target).fps == 12.0


@pytest.mark.parametrize("name", ["zeile\numbruch.mp4", "видео 動画 😀.mp4", "a'b\"c%d;e.mp4", "x" * 247 + ".mp4"])
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    source = write_video(tmp_path / "in" / name, num_frames=10)
    assert read_frame_numbers(all_frames(prepared(source, tmp_path, path=f"sub/{name}"))) == list(range(10))


# --- faults -----------------------------------------------------------------------------------------------------------


def refused(file: FileToPrepare, tmp_path: Path, settings: PrepareSettings = SMALL) -> str:
    with pytest.raises(UnreadableVideo) as caught:
        prepare_file(file, tmp_path / "out", settings, motion_folder=tmp_path / "motion")
    assert not list((tmp_path / "out").rglob("*.*"))  # nothing is left, not even a part
    return str(caught.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", num_frames=60)
    file = described(source)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert "when it was indexed; index the folder again" in refused(file, tmp_path)
    told = refused(replace(file, file_bytes=None), tmp_path)
    assert "frames, but had 60 when it was indexed" in told


def test_a_file_that_loses_frames_is_refused(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", num_frames=60, encoding=replace(H264_RGB, keyframe_spacing=60))
    file = described(whole)
    holed = copy_packets(whole, tmp_path / "holed.mp4", drop=[20])
    told = refused(replace(file, source=holed, file_bytes=None), tmp_path)
    assert "59 frames, but had 60" in told
    damaged = bytearray(whole.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 3000] = bytes(3000)
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    assert "does not decode" in refused(replace(file, source=tmp_path / "damaged.mp4"), tmp_path)


def test_a_new_file_that_is_not_as_asked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_rate(path: Path) -> dict[str, Any]:
        return {**probe_video(path), "fps": 24.0, "keyframe_spacing": 250}

    monkeypatch.setattr("ssl_video.data.prepare.probe_video", other_rate)
    told = refused(described(write_video(tmp_path / "a.mp4", num_frames=12)), tmp_path)
    assert "fps is 24.0, not 25.0" in told
    assert "keyframe_spacing is 250, not 16" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"short_side": 127}, "must be even"),
        ({"short_side": 0}, "at least 2"),
        ({"keyframe_every": 0}, "at least 1"),
        ({"fps": 0.0}, "above 0"),
        ({"quality": 52}, "in 0..51"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PrepareSettings(**arguments)


# --- motion -----------------------------------------------------------------------------------------------------------


def segment_of(path: Path, stretch: Stretch, first: int, number: int) -> Segment:
    height, width = all_frames(path).shape[1:3]
    return Segment(0, stretch.segment_id, stretch.video_id, path.name, first, number, 25.0, width, height)


def test_motion_tables_are_those_of_the_new_file(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=drifting(100, height=256, width=340))
    first, second = Stretch("a#0", "a", None, 2.0), Stretch("a#1", "a", 1.2, 3.6)
    settings = PrepareSettings(motion="farneback")
    empty = Stretch("a#2", "a", 9.0, 10.0)
    target = prepared(source, tmp_path, settings, stretches=(first, second, empty))
    for stretch, start, number in ((first, 0, 50), (second, 30, 60)):
        segment = segment_of(target, stretch, start, number)
        table = read_motion(tmp_path / "motion", segment)
        assert table is not None
        own = compute_motion(PyAVReader(target), segment, flow=farneback, settings=motion_settings(settings))
        assert table.grid.shape == own.grid.shape
        # Of one decoding: the source's pixels scaled once, where ssl-video motion sees the compressed ones.
        assert np.abs(table.magnitude - own.magnitude).max() < 0.1 * own.magnitude.mean()
        assert np.abs(table.grid - own.grid).mean() < 0.1 * own.magnitude.mean()
        assert np.abs(table.thumbnails - own.thumbnails.astype(float)).mean() < 3
        # The picture drifts by (1, 2) pixels of the source, which are half as many of the new file.
        assert np.median(table.magnitude) == pytest.approx(5**0.5 / 2, rel=0.15)
    assert len(list((tmp_path / "motion").glob("*.npz"))) == 2


def test_motion_is_measured_on_the_same_frames_as_by_itself(tmp_path: Path) -> None:
    # Not scaled, the tables of the source are the very same numbers.
    source = write_video(tmp_path / "a.mp4", frames=drifting(80, height=96, width=128))
    stretch = Stretch("a", "a", None, None)
    target = prepared(source, tmp_path, PrepareSettings(motion="farneback"), stretches=(stretch,))
    segment = segment_of(target, stretch, 0, 80)
    table = read_motion(tmp_path / "motion", segment)
    own = compute_motion(PyAVReader(source), segment, flow=farneback)
    assert table is not None
    assert np.array_equal(table.grid, own.grid)
    assert np.array_equal(table.magnitude, own.magnitude)
    assert np.array_equal(table.thumbnails, own.thumbnails)


# --- as a program -----------------------------------------------------------------------------------------------------


@pytest.fixture
def program() -> Iterator[LineProcess]:
    process = LineProcess((sys.executable, "-m", "ssl_video.data.prepare"))
    yield process
    process.kill()
    process.close()


@pytest.mark.slow
def test_as_a_program_it_answers_bytes_or_a_reason(tmp_path: Path, program: LineProcess) -> None:
    source = write_video(tmp_path / "a.mp4", num_frames=12)
    file = described(source)
    common = {"folder": str(tmp_path / "out"), "motion_folder": str(tmp_path / "motion")}
    settings = {"short_side": 64, "keyframe_every": 16, "fps": None, "quality": 23, "motion": None}

    def ask(file: FileToPrepare) -> dict[str, Any]:
        return program.ask({**common, "settings": settings, "file": file.asked()}, deadline_seconds=60)

    assert ask(file) == {"bytes": (tmp_path / "out" / "new.mp4").stat().st_size}
    assert "when it was indexed" in ask(replace(file, num_frames=40))["reason"]
    assert "FileNotFoundError" in ask(replace(file, source=tmp_path / "gone.mp4"))["reason"]
    (tmp_path / "out" / "taken").write_text("")
    answer = ask(replace(file, path="taken/new.mp4"))
    assert "Error" in answer["reason"] and answer["is_full"] is False


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O error")])
def test_a_full_disk_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: OSError) -> None:
    def fails(*_: Any, **__: Any) -> int:
        raise fault

    monkeypatch.setattr(prepare, "prepare_file", fails)
    file = described(write_video(tmp_path / "a.mp4", num_frames=2))
    folders = {"folder": str(tmp_path), "motion_folder": str(tmp_path)}
    answer = prepare._answer({"file": file.asked(), "settings": {"short_side": 64}, **folders})
    assert answer == {"reason": f"OSError: {fault}", "is_full": fault.errno == errno.ENOSPC}
