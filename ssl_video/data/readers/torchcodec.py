"""Reads videos through torchcodec, which needs the FFmpeg libraries of the system."""

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssl_video.data.readers.plain import LibraryGaveUp, PlainStreamReader
from ssl_video.data.readers.stream import StreamTable
from ssl_video.utils.errors import InputError


class TorchcodecReader(PlainStreamReader):
    """A video read with torchcodec, or with PyAV where torchcodec finds the wrong frames (MPEG streams, some AVI)."""

    _name = "torchcodec"
    _video: Any = None

    def _open(self, table: StreamTable, *, num_threads: int) -> int:
        try:
            video_decoder = importlib.import_module("torchcodec.decoders").VideoDecoder
        except (ImportError, OSError) as error:
            raise _not_usable(error) from error
        try:
            self._video = video_decoder(
                str(self.path), stream_index=table.stream_index, dimension_order="NHWC", num_ffmpeg_threads=num_threads
            )
        except (RuntimeError, ValueError) as error:
            if "libtorchcodec" in str(error):  # FFmpeg's libraries are looked for at the first use
                raise _not_usable(error) from error
            return 0
        return len(self._video)

    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        for index in wanted:
            # One at a time: torchcodec decodes on from where it is, and no more than one full frame is held.
            try:
                frame: np.ndarray = self._video.get_frame_at(index).data.numpy()
            except (RuntimeError, IndexError) as error:
                raise LibraryGaveUp from error
            yield frame

    def _release(self) -> None:
        self._video = None


def _not_usable(error: Exception) -> InputError:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(
        f"torchcodec cannot be used ({first_line}); it needs `pip install torchcodec` and the system's shared FFmpeg "
        "libraries (libavcodec and its companions). Or choose another reader with reader=pyav."
    )
