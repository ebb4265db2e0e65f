"""Reads videos through PyAV: every container and codec of its FFmpeg, exact in every file whose packets have times."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from ssl_video.data.readers.base import Box, read_once_in_order
from ssl_video.data.readers.stream import StreamTable, fault, open_container, scan
from ssl_video.utils.errors import UnreadableVideo

if TYPE_CHECKING:
    from av.container import InputContainer

# Decoding this many frames on costs about as much as emptying the decoder and seeking.
FRAMES_WORTH_A_SEEK = 8
# Decoders put out frames in the order of the codec; times that contradict it do so by a few frames.
REORDERED_FRAMES = 16


class PyAVReader:
    """A video read with PyAV.

    Frames are told by their presentation times, so a seek that lands elsewhere than asked does no harm. A file whose
    packets have no usable times, or whose keyframe marks turn out to be false, is decoded through from its start.
    """

    def __init__(self, path: Path, *, num_threads: int = 1, table: StreamTable | None = None) -> None:
        """Opens a video and reads its packets, not yet its frames.

        Args:
            path: the file.
            num_threads: decoding threads; 1 where several worker processes read.
            table: the file's table where it was read before.

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
        self._container: InputContainer | None = None
        self._decoded: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._early: dict[int, av.VideoFrame] = {}
        self._position = self.num_frames  # the next frame that decoding on would give; past the end: nothing is open
        self._is_closed = False

    def read(
        self, indices: Sequence[int] | np.ndarray, *, box: Box | None = None, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """See VideoReader.read."""
        if self._is_closed:
            raise ValueError(f"{self.path.name} is closed; open a new reader.")
        return read_once_in_order(
            indices, self._frames, num_frames=self.num_frames, name=self.path.name, box=box, size=size
        )

    def close(self) -> None:
        """Frees the file."""
        self._is_closed = True
        self._forget()

    def decode_to_end(self, first: int) -> Iterator[av.VideoFrame]:
        """Yields the frames from `first` to the last, as decoded; UnreadableVideo where one does not come."""
        return self._video_frames(range(first, self.num_frames))

    def _frames(self, wanted: np.ndarray) -> Iterator[np.ndarray]:
        return (_upright(frame) for frame in self._video_frames(wanted.tolist()))

    def _video_frames(self, wanted: Sequence[int]) -> Iterator[av.VideoFrame]:
        for count, index in enumerate(wanted):
            came = f"{count} of {len(wanted)} frames came; frame {index} of {self.num_frames}"
            try:
                yield self._frame(index)
            except _StreamOver as error:
                self._forget()
                raise StreamEnded(f"{came} is behind the end of the stream") from error
            except (av.FFmpegError, _FrameMissing) as error:
                self._forget()
                reason = fault(error) if isinstance(error, av.FFmpegError) else "the stream goes on without it"
                raise UnreadableVideo(f"{came} does not decode: {reason}") from error

    def _frame(self, index: int) -> av.VideoFrame:
        keyframe = int(self._keyframes[np.searchsorted(self._keyframes, index, side="right") - 1])
        if index < self._position or keyframe > self._position + FRAMES_WORTH_A_SEEK:
            self._go_to(keyframe)
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

    def _go_to(self, keyframe: int) -> None:
        """Makes a keyframe, or one before it, the next to be decoded."""
        self._early = {}
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
        stream = self._container.streams[self._table.stream_index]
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
        self._container = open_container(self.path)
        stream = next(s for s in self._container.streams.video if s.index == self._table.stream_index)
        stream.codec_context.thread_count = self._num_threads
        return self._container.demux(stream)

    def _decode(self, packets: Iterator["av.Packet[Any]"]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yields frames with their index; frames that the table does not know are none of the video's."""
        times = self._table.times
        count = 0
        for packet in packets:
            for frame in packet.decode():
                if not isinstance(frame, av.VideoFrame):
                    continue
                if not self._table.is_timed:
                    yield count, frame
                    count += 1
                elif frame.pts is not None:
                    place = int(np.searchsorted(times, frame.pts))
                    if place < len(times) and times[place] == frame.pts:
                        yield place, frame

    def _forget(self) -> None:
        self._early = {}
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


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3] by the frame's own colour matrix and range, turned as the display matrix says."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, k=quarter_turns(frame))


def quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise quarter turns that set a frame upright; broken matrices turn nothing."""
    return frame.rotation // 90 % 4 if frame.rotation % 90 == 0 else 0
