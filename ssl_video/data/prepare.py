"""Makes a small copy of a video file that is cheap to read frames from.

Run as a program it prepares one file after the other, so that a file that crashes the decoder ends only this process.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from ssl_video.data.line_process import answer_lines
from ssl_video.data.manifest import Segment, frame_bounds
from ssl_video.data.motion import MotionSettings, write_motion
from ssl_video.data.optical_flow import FLOWS, MotionMeter, use_one_thread
from ssl_video.data.probe import OK, probe_video
from ssl_video.data.readers.base import resize_frame
from ssl_video.data.readers.frames import FramesReader
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.rgb import RGBConverter
from ssl_video.data.readers.stream import FPS_WITHOUT_TIMES, scan
from ssl_video.utils.errors import InputError, UnreadableVideo

FORMAT_VERSION = 1  # to be raised when equal settings give other files
PARTIAL_ENDING = ".partial"
IMAGES = "images"  # the codec, as manifests name it, of folders and zips of numbered images
HIGHEST_QUALITY_NUMBER = 51
RATE_DENOMINATOR = 100_000  # finds 30000/1001 again in 29.97002997
SMPTE_170M = 6  # FFmpeg's number of the colour matrix of ITU-R BT.601
PRESET = "veryfast"
TUNE = "fastdecode"

Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]
Source = PyAVReader | FramesReader
PreparedFlow = Literal["farneback", "frame_difference"]


@dataclass(frozen=True)
class PrepareSettings:
    """How files are made; all of one folder have the same.

    The defaults were chosen by what sixteen frames at stride 2 cost (benchmark/preparing.py). x264's ``fastdecode``
    tuning takes a third off for files 5 % larger. A keyframe every 8, 16 or 32 frames costs the same within what can be
    measured where frames that are not needed are skipped, and 8 is 17 % larger; where they are not (decord), 32 costs
    10 % more than 16. B-frames would save 10 % of the bytes and no time; without them frames lie in the file in the
    order in which they are shown, so that every library finds the same ones. The quality is x264's own default: 20
    costs a third more time and 40 % more bytes for about 1 dB.

    Attributes:
        short_side: pixels of the shorter side; smaller sources keep their size.
        keyframe_every: frames from one keyframe to the next, always.
        fps: frames per second of all files; None keeps every frame, its number and order.
        quality: x264's constant rate factor; smaller is better and larger.
        motion: also make the tables of ``ssl-video motion``, with this flow.
    """

    short_side: int = 128
    keyframe_every: int = 16
    fps: float | None = None
    quality: int = 23
    motion: PreparedFlow | None = None

    def __post_init__(self) -> None:
        if self.short_side < 2 or self.short_side % 2:
            raise InputError(f"short side {self.short_side} must be even and at least 2, as 4:2:0 video needs.")
        if self.keyframe_every < 1:
            raise InputError(f"a keyframe every {self.keyframe_every} frames: must be at least 1.")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise InputError(f"fps {self.fps} must be above 0 and at most 1000; leave it out to keep every frame.")
        if not 0 <= self.quality <= HIGHEST_QUALITY_NUMBER:
            raise InputError(f"quality {self.quality} must be in 0..{HIGHEST_QUALITY_NUMBER}; 23 is the default.")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width, both even, of what becomes of frames of that size; 340 x 256 gives 170 x 128 for 128."""
        scale = min(1.0, self.short_side / min(height, width))
        return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))

    def rate(self, fps: float) -> Fraction:
        """Frames per second of what becomes of a file with so many."""
        return Fraction(self.fps or fps or FPS_WITHOUT_TIMES).limit_denominator(RATE_DENOMINATOR)

    def described(self) -> dict[str, Any]:
        """What stands in the folder's JSON."""
        return {"version": FORMAT_VERSION, **asdict(self)}


@dataclass(frozen=True)
class Stretch:
    """A segment of a file, as its manifest names it."""

    segment_id: str
    video_id: str
    start_seconds: float | None
    end_seconds: float | None


@dataclass(frozen=True)
class FileToPrepare:
    """A video file as its manifest describes it, and what is to become of it.

    Attributes:
        source: the file, or a folder or zip of numbered images.
        path: the new file, relative to the new folder, with forward slashes.
        num_frames, fps, height, width, codec, file_bytes, modified_ns: see the manifest; null where it does not say.
        stretches: segments that get a motion table, if they are asked for.
    """

    source: Path
    path: str
    num_frames: int
    fps: float
    height: int
    width: int
    codec: str | None
    file_bytes: int | None
    modified_ns: int | None
    stretches: tuple[Stretch, ...] = ()

    def asked(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "source": str(self.source)}

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> FileToPrepare:
        """From what `asked` made."""
        stretches = tuple(Stretch(**stretch) for stretch in asked["stretches"])
        return cls(**{**asked, "source": Path(asked["source"]), "stretches": stretches})


def prepare_file(file: FileToPrepare, folder: Path, settings: PrepareSettings, *, motion_folder: Path) -> int:
    """Makes one file, and its motion tables before it: the file appears when all is there.

    Frames come through our readers, so rotation, 10 bits, odd formats and pixels that are not square become what
    training would have seen. Their times become regular, at the file's mean rate, which is how frames are counted
    everywhere else: frame i stays frame i. With ``settings.fps`` frame i is the source's nearest in time to i / fps.

    Args:
        file: what to make of what.
        folder: where.
        settings: how.
        motion_folder: of the tables, where ``settings.motion`` asks for them.

    Returns:
        Bytes of the new file.

    Raises:
        UnreadableVideo: the source does not give the frames it should, or the new file is not as it should be.
        OSError: the new file cannot be written.
    """
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(partial_name(file.path))
    reader, times = _open(file)
    try:
        indices, rate = _wanted(times, file, settings), settings.rate(file.fps)
        tables = _Tables(file, settings, num_frames=len(indices), fps=float(rate))
        size = settings.size(file.height, file.width)
        try:
            _encode(temporary, _watched(reader, indices, size, tables), size=size, rate=rate, settings=settings)
        finally:
            reader.close()
        _check(temporary, num_frames=len(indices), fps=float(rate), size=size, settings=settings)
        file_bytes = temporary.stat().st_size
        tables.write(motion_folder, file_bytes=file_bytes)
        # The source's time tells later whether the source is still the one that this was made of.
        if file.modified_ns is not None:
            os.utime(temporary, ns=(file.modified_ns, file.modified_ns))
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
        return file_bytes
    finally:
        temporary.unlink(missing_ok=True)


def partial_name(path: str) -> str:
    """Name of the unfinished file: short, whatever the path, and another one for each process."""
    return f".{hashlib.sha256(path.encode()).hexdigest()[:16]}.{os.urandom(6).hex()}{PARTIAL_ENDING}"


def _open(file: FileToPrepare) -> tuple[Source, NDArray[np.float64]]:
    """The source's reader, and the times of its frames in seconds from the first."""
    if file.codec == IMAGES:
        images = FramesReader(file.source, fps=file.fps)
        return images, np.arange(file.num_frames) / file.fps
    if file.file_bytes is not None and (found := file.source.stat().st_size) != file.file_bytes:
        raise UnreadableVideo(
            f"has {found} bytes, but had {file.file_bytes} when it was indexed; index the folder again"
        )
    table = scan(file.source)
    if table.num_frames < file.num_frames:
        raise UnreadableVideo(f"has {table.num_frames} frames, but had {file.num_frames} when it was indexed")
    times = np.arange(file.num_frames) / (file.fps or FPS_WITHOUT_TIMES)
    if table.is_timed and file.num_frames > 1:
        # The table does not say what its unit is, but the mean rate does.
        shown = table.times[: file.num_frames] - table.times[0]
        times = shown * (times[-1] / shown[-1])
    return PyAVReader(file.source, table=table), times


def _wanted(times: NDArray[np.float64], file: FileToPrepare, settings: PrepareSettings) -> Indices:
    """Which frames of the source the new file has, ascending: each one once, or those nearest to regular times."""
    if settings.fps is None:
        return np.arange(file.num_frames)
    number = max(1, round(file.num_frames / (file.fps or FPS_WITHOUT_TIMES) * settings.fps))
    between = (times[:-1] + times[1:]) / 2
    # Half-way between two frames, and by however little the sums are off, it is the earlier one.
    return np.searchsorted(between, np.arange(number) / settings.fps - 1e-9, side="left").astype(np.int64)


class _Tables:
    """The motion tables of a file's segments, fed with its frames as they come."""

    def __init__(self, file: FileToPrepare, settings: PrepareSettings, *, num_frames: int, fps: float) -> None:
        self._meters: list[tuple[Segment, MotionMeter]] = []
        if settings.motion is None:
            return
        height, width = settings.size(file.height, file.width)
        for stretch in file.stretches:
            first, behind = frame_bounds({**asdict(stretch), "num_frames": num_frames, "fps": fps})
            segment = Segment(
                row=0,
                segment_id=stretch.segment_id,
                video_id=stretch.video_id,
                path=file.path,
                first_frame=first,
                num_frames=behind - first,
                fps=fps,
                width=width,
                height=height,
            )
            if segment.num_frames:
                # In pixels of the new file, whose tables these are, but measured on the source's.
                meter = MotionMeter(height, width, flow=FLOWS[settings.motion], settings=motion_settings(settings))
                self._meters.append((segment, meter))

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the frames that are measured; None where none are."""
        return self._meters[0][1].size if self._meters else None

    def add(self, place: int, frame: Bytes) -> None:
        """Takes a frame of the new file, uint8 ``[1, h, w, 3]`` of `size`."""
        for segment, meter in self._meters:
            if 0 <= place - segment.first_frame < segment.num_frames:
                meter.add(frame)

    def write(self, folder: Path, *, file_bytes: int) -> None:
        for segment, meter in self._meters:
            write_motion(folder, segment, meter.table(), file_bytes=file_bytes)


def motion_settings(settings: PrepareSettings) -> MotionSettings:
    """The settings of the tables that are made along with the files."""
    return MotionSettings(flow=settings.motion or "farneback")


def _watched(reader: Source, indices: Indices, size: tuple[int, int], tables: _Tables) -> Iterator[Bytes]:
    """Yields the new file's pictures, uint8 ``[h, w, 3]``, and shows them to the tables."""
    place = 0
    for index, frame in _frames(reader, set(indices.tolist())):
        picture = resize_frame(frame, size)
        small = None if tables.size is None else resize_frame(frame, tables.size)[None]
        while place < len(indices) and indices[place] == index:
            if small is not None:
                tables.add(place, small)
            yield picture
            place += 1


def _frames(reader: Source, wanted: Collection[int]) -> Iterator[tuple[int, Bytes]]:
    """Yields the wanted frames of the source, uint8 ``[H, W, 3]``, upright, with their index, in one pass."""
    if isinstance(reader, FramesReader):
        for index in sorted(wanted):
            yield index, reader.read([index])[0]
        return
    converter = RGBConverter()
    for index, frame in zip(range(max(wanted) + 1), reader.decode_to_end(0), strict=False):
        if index in wanted:
            yield index, converter.convert(frame)


def _encode(
    path: Path, pictures: Iterable[Bytes], *, size: tuple[int, int], rate: Fraction, settings: PrepareSettings
) -> None:
    """Writes pictures, uint8 ``[h, w, 3]``, as H.264 by one thread, so that equal pictures give equal files."""
    options = {
        "crf": str(settings.quality),
        "preset": PRESET,
        "tune": TUNE,
        # Keyframes at regular places only, each the begin of a closed group. x264's macroblock tree reads beyond its
        # arrays where frames are narrow: now and then equal pictures would give another file.
        "x264-params": f"scenecut=0:min-keyint={settings.keyframe_every}:open-gop=0:mbtree=0",
    }
    with av.open(str(path), mode="w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = 1 / rate
        context = stream.codec_context
        context.thread_count = 1
        context.gop_size = settings.keyframe_every
        context.max_b_frames = 0
        # Said, so that no program has to guess it from the size.
        context.colorspace, context.color_range = SMPTE_170M, ColorRange.MPEG.value
        to_yuv = VideoReformatter()
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = to_yuv.reformat(
                frame,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU601.value,
                dst_color_range=ColorRange.MPEG.value,
                threads=1,
            )
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _check(path: Path, *, num_frames: int, fps: float, size: tuple[int, int], settings: PrepareSettings) -> None:
    """Looks into the new file as an index does, and refuses one that is not as asked."""
    found = probe_video(path)
    wanted = {"status": OK, "num_frames": num_frames, "fps": fps, "height": size[0], "width": size[1], "rotation": 0}
    differing = {name: (found.get(name), value) for name, value in wanted.items() if found.get(name) != value}
    if found.get("keyframe_spacing", 0) > settings.keyframe_every:
        differing["keyframe_spacing"] = (found["keyframe_spacing"], settings.keyframe_every)
    if differing:
        told = ", ".join(f"{name} is {got}, not {value}" for name, (got, value) in differing.items())
        raise UnreadableVideo(f"the new file is not as asked: {told}")


def main() -> None:
    """Answers JSON lines: of the file to make and how, to its bytes, or the reason why there are none."""
    use_one_thread()
    answer_lines(_answer)


def _answer(question: Mapping[str, Any]) -> dict[str, Any]:
    try:
        file, settings = FileToPrepare.of(question["file"]), PrepareSettings(**question["settings"])
        folder, motion_folder = Path(question["folder"]), Path(question["motion_folder"])
        return {"bytes": prepare_file(file, folder, settings, motion_folder=motion_folder)}
    except UnreadableVideo as fault:
        return {"reason": str(fault)}
    except Exception as fault:  # one odd file must not end the rest; it is named in the manifest
        number = fault.errno if isinstance(fault, OSError) else None
        is_full = number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        return {"reason": f"{type(fault).__name__}: {fault}", "is_full": is_full}


if __name__ == "__main__":
    main()
