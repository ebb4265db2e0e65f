"""Small videos whose frame numbers can be read back from the pixels.

A frame is a grid of four by four black or white blocks above one strip of grey. Twelve blocks are the bits of the
frame number, four are marks that hold only if the picture is upright, and the strip's grey level follows the number.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

NUM_BITS = 12
# Place in the 4x4 grid -> value. No turn or mirror image of the grid shows the same marks.
MARKS = {0: 1, 3: 1, 12: 1, 15: 0}
BIT_PLACES = [place for place in range(16) if place not in MARKS]


@dataclass(frozen=True)
class Encoding:
    """How PyAV writes the pictures; the default is lossless H.264 with B-frames."""

    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"qp": "0", "preset": "ultrafast", "bf": "2"})
    keyframe_spacing: int = 12


H264 = Encoding()
H264_RGB = Encoding("libx264rgb", "rgb24", {"qp": "0", "preset": "ultrafast"})
H265 = Encoding("libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "lossless=1:bframes=3:log-level=none"})
VP9 = Encoding("libvpx-vp9", "yuv420p", {"lossless": "1", "cpu-used": "8", "deadline": "realtime"})
AV1 = Encoding("libsvtav1", "yuv420p", {"preset": "10", "crf": "0", "svtav1-params": "lossless=1:lp=1"})
VP8 = Encoding("libvpx", "yuv420p", {"qmin": "0", "qmax": "1", "b": "20M"})
MPEG4 = Encoding("mpeg4", "yuv420p", {"qmin": "1", "qmax": "1"})
MPEG4_B = Encoding("mpeg4", "yuv420p", {"qmin": "1", "qmax": "1", "bf": "2"})
MPEG2 = Encoding("mpeg2video", "yuv420p", {"qmin": "1", "qmax": "1", "bf": "2"})


def numbered_frame(number: int, height: int, width: int) -> np.ndarray:
    """Returns the picture of one frame number, uint8 [height, width, 3]."""
    if not 0 <= number < 2**NUM_BITS:
        raise ValueError(f"number={number} must be in 0..{2**NUM_BITS - 1}.")
    values = np.zeros(16, dtype=np.uint8)
    for place, mark in MARKS.items():
        values[place] = mark
    for bit, place in enumerate(BIT_PLACES):
        values[place] = number >> bit & 1
    picture = np.full((height, width), number * 16 % 256, dtype=np.uint8)
    rows, columns = _edges(height, 5), _edges(width, 4)
    for place, value in enumerate(values):
        row, column = divmod(place, 4)
        picture[rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = 255 * value
    return np.repeat(picture[..., None], 3, axis=2)


def read_frame_numbers(frames: np.ndarray) -> list[int]:
    """Reads the frame numbers of uint8 [T, H, W, 3] back; ValueError where a picture is not ours or not upright."""
    frames = np.asarray(frames)
    rows, columns = _edges(frames.shape[1], 5), _edges(frames.shape[2], 4)
    numbers = []
    for frame in frames.astype(float).mean(axis=-1):
        bits = []
        for place in range(16):
            row, column = divmod(place, 4)
            bits.append(int(_middle(frame, rows[row : row + 2], columns[column : column + 2]) > 127.5))
        wrong = [place for place, mark in MARKS.items() if bits[place] != mark]
        if wrong:
            raise ValueError(f"marks {wrong} are not as written; the picture is turned, cropped or not one of ours.")
        numbers.append(sum(bits[place] << bit for bit, place in enumerate(BIT_PLACES)))
    return numbers


def write_video(
    path: Path,
    *,
    num_frames: int = 30,
    height: int = 80,
    width: int = 96,
    fps: int = 25,
    encoding: Encoding = H264,
    times: Sequence[int] | None = None,
    frames: np.ndarray | None = None,
) -> Path:
    """Writes a video of numbered frames (or of `frames`, uint8 [T, H, W, 3]); the ending of the path is the container.

    `times` are presentation times in thousandths of a second, for a variable frame rate.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if frames is None:
        frames = np.stack([numbered_frame(number, height, width) for number in range(num_frames)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoding.codec, rate=fps, options=encoding.options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = encoding.pixel_format
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = encoding.keyframe_spacing
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def copy_packets(source: Path, target: Path, *, start_shift: int = 0, drop: Sequence[int] = ()) -> Path:
    """Copies the packets of a video without decoding, as a cutting tool does.

    A `start_shift` of n frames moves the times by -n frames, which leaves the first n to be decoded but not shown
    (an MP4 edit list). `drop` leaves out packets by their place in the file.
    """
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as reading, av.open(str(target), "w", options=options) as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        step = round(1 / (stream.average_rate * stream.time_base))
        packets = [packet for packet in reading.demux(stream) if packet.size]
        for place, packet in enumerate(packets):
            if place in drop:
                continue
            packet.pts, packet.dts = packet.pts - start_shift * step, packet.dts - start_shift * step
            packet.stream = copy
            writing.mux(packet)
    return target


def pack_frames(source: Path, target: Path) -> Path:
    """Packs B-frames into the packet of the frame before, as DivX does in AVI, with a placeholder for the last one."""
    marker, start = b"\x00\x00\x01\xb2DivX503b1393p", b"\x00\x00\x01\xb6"
    with av.open(str(source)) as reading:
        stream = reading.streams.video[0]
        rate, size = stream.average_rate, (stream.width, stream.height)
        contents = [bytes(packet) for packet in reading.demux(stream) if packet.size]
    is_b = [content[content.index(start) + 4] >> 6 == 2 for content in contents]
    packed: list[bytes] = []
    for place, content in enumerate(contents):
        follows_b = place > 0 and is_b[place - 1]
        if is_b[place] and not follows_b:
            packed[-1] += content
        else:
            packed.append(content)
        if is_b[place] and (place + 1 == len(contents) or not is_b[place + 1]):
            packed.append(start + b"\x50\x00")
    packed[0] = packed[0].replace(start, marker + start, 1)
    with av.open(str(target), "w") as writing:
        copy = writing.add_stream("mpeg4", rate=rate)
        copy.width, copy.height = size
        copy.pix_fmt = "yuv420p"
        for time, content in enumerate(packed):
            packet = av.Packet(content)
            packet.stream, packet.time_base = copy, 1 / rate
            packet.pts = packet.dts = time
            packet.is_keyframe = time == 0
            writing.mux(packet)
    return target


def turn(path: Path, degrees: int) -> Path:
    """Marks an MP4 to be shown turned by 90, 180 or 270 degrees clockwise: its track header's display matrix."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one, unit = 1 << 16, 1 << 30
    matrix = struct.pack(">9i", cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, unit)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + len(matrix)] = matrix
    path.write_bytes(content)
    return path


def _edges(length: int, parts: int) -> list[int]:
    return [length * part // parts for part in range(parts + 1)]


def _middle(frame: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> float:
    """Mean of the inner half of a block, where neighbours do not bleed in."""
    (top, bottom), (left, right) = rows, columns
    margin_y, margin_x = (bottom - top) // 4, (right - left) // 4
    return float(frame[top + margin_y : bottom - margin_y, left + margin_x : right - margin_x].mean())
