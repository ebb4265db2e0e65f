"""Which stream of a file is the video, and which packet is which frame: read from the packets, nothing is decoded."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from ssl_video.utils.errors import UnreadableVideo

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

FPS_WITHOUT_TIMES = 25.0
FPS_TOLERANCE = 0.02
MPEG4_PICTURE_START = b"\x00\x00\x01\xb6"
# Builds of x264 before these wrote B-frames and 4:4:4 otherwise than the standard says. FFmpeg knows them by the name
# that they leave in the first packet: behind a seek it decodes wrong pixels, without an error.
X264_NAME = re.compile(rb"x264 - core (\d+)")
FIRST_SOUND_BUILD, FIRST_SOUND_BUILD_444 = 34, 151
# MPEG streams: few packets carry a time, and behind a seek FFmpeg guesses the others differently than from the start.
CONTAINERS_WITHOUT_INDEX = ("mpegts", "mpeg")
PROBED_BYTES = 2048  # enough to know the container; FFmpeg reads the first packet whole


class NoVideoStream(UnreadableVideo):
    """A media file without moving pictures."""


@dataclass(frozen=True)
class StreamTable:
    """The frames of a video stream in presentation order.

    Attributes:
        stream_index: which stream of the file this is.
        codec: FFmpeg's name of the codec, such as h264.
        width, height: pixels as stored, before rotation.
        fps: average frames per second.
        times: presentation times in the stream's time base, int64 [num_frames], ascending; empty if the file has none
            to go by, and then the frames can only be counted from the start.
        num_frames: how many frames the stream shows.
        keyframes: indices of the frames that can be sought, ascending; the first frame is always one.
        is_plain: every packet is one shown frame, keyframes lie in the file at their place in presentation order, and
            the container can be sought by frame: then every library finds the same frames. Not plain are open groups
            of pictures, edit lists, packed frames, packets ahead of the first keyframe, MPEG streams without an index,
            H.263 (whose keyframe marks have been seen to be false), and what old builds of x264 wrote otherwise than
            the standard says (which must be decoded from the start).
    """

    stream_index: int
    codec: str
    width: int
    height: int
    fps: float
    times: np.ndarray
    num_frames: int
    keyframes: np.ndarray
    is_plain: bool

    @property
    def is_timed(self) -> bool:
        """Whether frames can be told by their times, and so be sought."""
        return bool(len(self.times))

    @property
    def keyframe_spacing(self) -> int:
        """Frames of the longest stretch that must be decoded from its start."""
        return int(np.diff(np.append(self.keyframes, self.num_frames)).max())


def open_container(path: Path, *, is_known: bool = False) -> "InputContainer":
    """Opens a file for reading; UnreadableVideo names the fault without the path (it goes into manifests).

    Args:
        path: the file.
        is_known: its table of frames is at hand. FFmpeg then does not decode the first frames to find out what the
            stream is like, which takes five times as long as all else where frames are large.
    """
    options = {"probesize": str(PROBED_BYTES), "skip_frame": "all"} if is_known else {}
    try:
        # Text tags that are no UTF-8 are common in phone recordings and none of our business.
        return av.open(str(path), metadata_errors="ignore", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(f"cannot be opened: {fault(error)}") from error


def choose_stream(container: "InputContainer") -> "VideoStream":
    """Picks the video stream that is marked as default; among several, or if none is, the one with the most pixels.

    Cover pictures are never taken.
    """
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise NoVideoStream("has no video stream")
    marked = [s for s in streams if s.disposition & Disposition.default] or streams
    return max(marked, key=lambda s: (s.width or 0) * (s.height or 0))


def scan(path: Path) -> StreamTable:
    """Reads all packets of the video stream and returns its table of frames.

    Raises:
        UnreadableVideo: the file cannot be opened, has no video stream, or the stream has no frames.
    """
    with open_container(path) as container:
        stream = choose_stream(container)
        packets: list[_Packet] = []
        needs_first_packet = False
        try:
            codec = _codec_name(stream)
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                if not packets:
                    needs_first_packet = codec == "h264" and _is_of_old_x264(stream, packet)
                packets.append(_Packet.of(packet, codec=codec))
        except av.FFmpegError as error:
            raise UnreadableVideo(f"cannot be read to its end: {fault(error)}") from error
        table = _table(stream, packets)
    if needs_first_packet:
        return replace(table, keyframes=np.zeros(1, dtype=np.int64), is_plain=False)
    return table


def fault(error: Exception) -> str:
    """FFmpeg's words for an error, without the path."""
    return str(getattr(error, "strerror", None) or error).strip()


def _is_of_old_x264(stream: "VideoStream", first: "av.Packet[Any]") -> bool:
    name = X264_NAME.search(bytes(first))
    is_444 = not stream.codec_context.pix_fmt or stream.codec_context.pix_fmt.startswith(("yuv444", "yuvj444", "gbr"))
    return name is not None and int(name[1]) < (FIRST_SOUND_BUILD_444 if is_444 else FIRST_SOUND_BUILD)


@dataclass(frozen=True)
class _Packet:
    time: int | None
    is_keyframe: bool
    is_shown: bool
    is_packed: bool

    @classmethod
    def of(cls, packet: "av.Packet[Any]", *, codec: str) -> "_Packet":
        is_shown, is_packed = not packet.is_discard, False
        if codec == "vp8":
            # Reference pictures that are never shown are packets of their own (RFC 6386, section 9.1: bit 4).
            is_shown = is_shown and bool(bytes(packet)[0] & 0x10)
        elif codec == "mpeg4":
            # AVI files repeat a frame by a packet without picture. DivX packs a B-frame into the packet of the frame
            # before, and later has a placeholder for it: so packets with pictures are as many as frames.
            pictures = bytes(packet).count(MPEG4_PICTURE_START)
            is_shown, is_packed = is_shown and pictures > 0, pictures > 1
        return cls(packet.pts, packet.is_keyframe, is_shown, is_packed)


def _table(stream: "VideoStream", packets: list[_Packet]) -> StreamTable:
    num_packets = len(packets)
    # A decoder has nothing to show before the first keyframe.
    first = next((place for place, packet in enumerate(packets) if packet.is_keyframe), 0)
    packets = packets[first:]
    shown = [packet.time for packet in packets if packet.is_shown]
    if not shown:
        raise UnreadableVideo("has no frames")
    # Times of packed frames are those of their packets, not theirs.
    is_packed = any(packet.is_packed for packet in packets)
    is_timed = not is_packed and None not in shown and len(set(shown)) == len(shown)
    times = np.sort(np.array(shown, dtype=np.int64)) if is_timed else np.empty(0, dtype=np.int64)
    keyframes, is_plain = np.zeros(1, dtype=np.int64), False
    if is_timed:
        key_times = [packet.time for packet in packets if packet.is_keyframe and packet.time is not None]
        # A keyframe that is not shown itself still starts the frames behind it.
        places = np.searchsorted(times, np.array(key_times or [times[0]], dtype=np.int64))
        if stream.container.format.name not in CONTAINERS_WITHOUT_INDEX:
            keyframes = np.unique(np.append(0, places[places < len(times)]))
        key_packets = [place for place, packet in enumerate(packets) if packet.is_keyframe]
        is_plain = (
            len(times) == num_packets
            and key_packets == places.tolist()
            and stream.container.format.name not in CONTAINERS_WITHOUT_INDEX
            and _codec_name(stream) != "h263"
        )
    return StreamTable(
        stream_index=stream.index,
        codec=_codec_name(stream),
        width=stream.width,
        height=stream.height,
        fps=_fps(stream, times),
        times=times,
        num_frames=len(shown),
        keyframes=keyframes,
        is_plain=is_plain,
    )


def _codec_name(stream: "VideoStream") -> str:
    """The format's name (av1), not the decoder's (libdav1d), which depends on how FFmpeg was built."""
    return str(stream.codec_context.codec.canonical_name)


def _fps(stream: "VideoStream", times: np.ndarray) -> float:
    """The declared rate, unless the times contradict it; times themselves are rounded, in Matroska to milliseconds."""
    declared = float(stream.average_rate or 0)
    measured = 0.0
    if len(times) > 1 and stream.time_base:
        measured = float((len(times) - 1) / ((times[-1] - times[0]) * stream.time_base))
    if declared and (not measured or abs(measured / declared - 1) < FPS_TOLERANCE):
        return declared
    return measured or float(stream.guessed_rate or FPS_WITHOUT_TIMES)
