"""Reads videos through PyAV: every container and codec of its FFmpeg, exact in every file whose packets have times."""

import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from ssl_video.data.readers.base import Box, Cut, FramePart, cut_in_order
from ssl_video.data.readers.rgb import RGBConverter
from ssl_video.data.readers.stream import StreamTable, fault, open_container, scan
from ssl_video.utils.errors import UnreadableVideo

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

# Decoding this many frames on costs about as much as emptying the decoder and seeking.
FRAMES_WORTH_A_SEEK = 8
# Decoders put out frames in the order of the codec; times that contradict it do so by a few frames.
REORDERED_FRAMES = 16
# These keep the time of every frame, so that it does not have to be worked out from how the codec orders frames.
CONTAINERS_WITH_TIMES = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Their decoders pass over a frame that is no reference without a trace, when they are told so for its packet. Those of
# VP9 do not care, that of AV1 would hold to it for the rest of the file. For HEVC see _may_skip.
SKIPPABLE_CODECS = ("h264", "mpeg4", "mpeg2video")
HVCC_VERSION = 1
HVCC_LAYERS_BYTE = 21


class _Own(threading.local):
    """What each thread has: a converter, which keeps for the next file what it has set up for the last."""

    def __init__(self) -> None:
        self.converter = RGBConverter()


_OWN = _Own()


class PyAVReader:
    """A video read with PyAV.

    Frames are told by their presentation times, so a seek that lands elsewhere than asked does no harm. A file whose
    packets have no usable times, or whose keyframe marks turn out to be false, is decoded through from its start.

    Frames that are neither asked for nor needed for others are not decoded (`skip_frame`), which changes no pixel of
    those that are. A read to which that does not lead is made again without.
    """

    def __init__(self, path: Path, *, num_threads: int = 1, table: StreamTable | None = None) -> None:
        """Opens a video and reads its packets, not yet its frames.

        Args:
            path: the file.
            num_threads: decoding threads; 1 where several worker processes read.
            table: the file's table of frames where it is known; one that is not the file's leads to an error.

        Raises:
            UnreadableVideo: the file has no video that can be read.
        """
        self.path = Path(path)
        self._num_threads = num_threads
        self._table = scan(self.path) if table is None else table
        self.num_frames = self._table.num_frames
        self.fps = self._table.fps
        self._keyframes = self._table.keyframes
        self._sought = -1  # the keyframe that was last sought
        self._hurries = self._table.is_timed  # whether frames are skipped, and FFmpeg does not probe the stream
        self._wanted: dict[int, int] = {}  # time -> index of the frames that are being read
        self._unwanted: set[int] = set()  # times of packets since the last seek that may have been skipped
        self._container: InputContainer | None = None
        self._decoded: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._early: dict[int, av.VideoFrame] = {}
        self._position = self.num_frames  # the next frame that decoding on would give; past the end: nothing is open
        self._is_closed = False

    def read(
        self, indices: Sequence[int] | np.ndarray, *, box: Box | None = None, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """See VideoReader.read."""
        return self.read_cuts([Cut(np.asarray(indices), FramePart(box, size))])[0]

    def read_cuts(self, cuts: Sequence[Cut]) -> list[np.ndarray]:
        """See VideoReader.read_cuts."""
        if self._is_closed:
            raise ValueError(f"{self.path.name} is closed; open a new reader.")
        return cut_in_order(cuts, self._frames, num_frames=self.num_frames, name=self.path.name)

    def close(self) -> None:
        """Frees the file."""
        self._is_closed = True
        self._forget()

    def decode_to_end(self, first: int) -> Iterator[av.VideoFrame]:
        """Yields the frames from `first` to the last, as decoded; UnreadableVideo where one does not come."""
        return self._video_frames(range(first, self.num_frames))

    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        return map(_OWN.converter.convert, self._video_frames(wanted))

    def _video_frames(self, wanted: Sequence[int]) -> Iterator[av.VideoFrame]:
        if self._table.is_timed:
            self._wanted = dict(zip(self._table.times[np.asarray(wanted)].tolist(), wanted, strict=True))
        for count, index in enumerate(wanted):
            try:
                yield self._frame(index)
            except (av.FFmpegError, _FrameMissing, _StreamOver) as error:
                self._forget()
                came = f"{count} of {len(wanted)} frames came; frame {index} of {self.num_frames}"
                if isinstance(error, _StreamOver):
                    raise StreamEnded(f"{came} is behind the end of the stream") from error
                reason = fault(error) if isinstance(error, av.FFmpegError) else "the stream goes on without it"
                raise UnreadableVideo(f"{came} does not decode: {reason}") from error

    def _frame(self, index: int) -> av.VideoFrame:
        if self._hurries:
            try:
                frame = self._decode_up_to(index)
                # A field that is a packet of its own must not be skipped if the frame's other field is not.
                if not (frame.interlaced_frame or frame.is_corrupt):
                    return frame
            except (av.FFmpegError, UnreadableVideo, _FrameMissing, _StreamOver):
                pass
            self._hurries = False
            self._forget()
        return self._decode_up_to(index)

    def _decode_up_to(self, index: int) -> av.VideoFrame:
        if not self._is_ahead(index):
            self._go_to(self._keyframe(index))
        while index not in self._early:
            place, frame = next(self._decoded, (None, None))
            if place is None or frame is None:
                raise _FrameMissing if self._early else _StreamOver
            if len(self._early) > REORDERED_FRAMES:
                raise _FrameMissing
            if place == self._sought and frame.pict_type != av.video.frame.PictureType.I:
                # Phones have been seen to mark every 50th frame as a keyframe, whatever it is.
                self._keyframes = np.zeros(1, dtype=np.int64)
                self._go_to(0)
            elif place >= index:
                self._early[place] = frame
        self._position = index + 1
        frame = self._early.pop(index)
        self._early = {place: kept for place, kept in self._early.items() if place > index}
        return frame

    def _is_ahead(self, index: int) -> bool:
        """Whether decoding on is the way to a frame."""
        if index < self._position:
            return False
        if index > self._position + FRAMES_WORTH_A_SEEK < self._keyframe(index):
            return False
        is_skipped = self._unwanted and int(self._table.times[index]) in self._unwanted
        return not is_skipped or index in self._early

    def _keyframe(self, index: int) -> int:
        """The keyframe to start at for a frame."""
        return int(self._keyframes[self._keyframes.searchsorted(index, side="right") - 1])

    def _go_to(self, keyframe: int) -> None:
        """Makes a keyframe, or one before it, the next to be decoded."""
        self._early = {}
        self._unwanted = set()
        earlier = self._keyframes[(self._keyframes <= keyframe) & (self._keyframes > 0)]
        for candidate in earlier[::-1][:3].tolist():
            if self._seek(candidate):
                self._sought = candidate
                return
        # From the start by opening again: seeking to the first time skips frames in containers without an index.
        self._forget()
        self._decoded = self._decode(self._packets())

    def _seek(self, keyframe: int) -> bool:
        """Seeks, and checks by the first keyframe that is really there; False if it lies behind the one asked for."""
        if self._container is None:
            self._packets()
        assert self._container is not None
        stream = self._stream()
        time = int(self._table.times[keyframe])
        try:
            self._container.seek(time, stream=stream, backward=True)
            packets = self._container.demux(stream)
            first = next((packet for packet in packets if packet.is_keyframe and packet.size), None)
        except av.FFmpegError:
            return False
        if first is None or first.pts is None or first.pts > time:
            return False
        self._decoded = self._decode(chain([first], packets))
        return True

    def _packets(self) -> Iterator["av.Packet[Any]"]:
        self._container = self._open()
        stream = self._stream()
        stream.codec_context.thread_count = self._num_threads
        return self._container.demux(stream)

    def _open(self) -> "InputContainer":
        container = open_container(self.path, is_known=self._hurries)
        if self._hurries and container.format.name not in CONTAINERS_WITH_TIMES:
            container.close()
            return open_container(self.path)
        return container

    def _stream(self) -> "VideoStream":
        assert self._container is not None
        for stream in self._container.streams.video:
            if stream.index == self._table.stream_index and stream.codec_context is not None:
                return stream
        raise UnreadableVideo(f"has no video in stream {self._table.stream_index}; index the file again")

    def _decode(self, packets: Iterator["av.Packet[Any]"]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yields frames with their index; frames that the table does not know are none of the video's."""
        codec, is_timed = self._stream().codec_context, self._table.is_timed
        skips, is_skipping = self._hurries and _may_skip(codec), False
        count = 0
        for packet in packets:
            if skips and (packet.pts in self._wanted or packet.pts is None) is is_skipping:
                is_skipping = not is_skipping
                codec.skip_frame = "NONREF" if is_skipping else "DEFAULT"
            if is_skipping and packet.pts is not None:
                self._unwanted.add(packet.pts)
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    place = self._place(frame.pts) if is_timed else count
                    count += 1
                    if place is not None:
                        yield place, frame

    def _place(self, time: int | None) -> int | None:
        """The index of the frame of a time, None where the table has none."""
        if time is None or time in self._wanted:
            return None if time is None else self._wanted[time]
        times = self._table.times
        place = int(times.searchsorted(time))
        return place if place < len(times) and times[place] == time else None

    def _forget(self) -> None:
        self._early = {}
        self._unwanted = set()
        self._decoded = iter(())
        self._sought = -1
        self._position = self.num_frames
        if self._container is not None:
            self._container.close()
            self._container = None


class StreamEnded(UnreadableVideo):
    """The stream has fewer frames than its packets said, and no fault."""


class _FrameMissing(Exception):
    """The stream went past a frame without giving it."""


class _StreamOver(Exception):
    """The stream ended before a frame."""


def _may_skip(codec: "VideoCodecContext") -> bool:
    """Whether the decoder skips no frame that another needs when it is told to skip those that are no reference."""
    name = codec.codec.canonical_name
    if name != "hevc":
        return name in SKIPPABLE_CODECS
    # What HEVC calls no reference may be one to the next temporal layer: the header says how many layers there are.
    header = bytes(codec.extradata or b"")
    is_hvcc = len(header) > HVCC_LAYERS_BYTE and header[0] == HVCC_VERSION
    return is_hvcc and header[HVCC_LAYERS_BYTE] >> 3 & 0b111 == 1
