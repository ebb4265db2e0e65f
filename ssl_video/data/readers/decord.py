"""Reads videos through decord."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ssl_video.data.readers.plain import LibraryGaveUp, PlainStreamReader
from ssl_video.data.readers.stream import StreamTable
from ssl_video.utils.errors import InputError

# decord repeats the nearest frame where one does not decode; above this share of repeated frames it raises instead.
NO_REPEATED_FRAMES = 1e-9


class DecordReader(PlainStreamReader):
    """A video read with decord, or with PyAV where decord finds the wrong frames.

    decord counts keyframes in file order but frames in presentation order, so behind a seek it is off by as many
    frames as the two differ: in open groups of pictures (x265's default, MPEG-2, MPEG-4 with B-frames) and edit lists.
    """

    _name = "decord"
    _video: Any = None

    def _open(self, table: StreamTable, *, num_threads: int) -> int:
        decord = _import_decord()
        try:
            self._video = decord.VideoReader(str(self.path), num_threads=num_threads, fault_tol=NO_REPEATED_FRAMES)
        except (decord.DECORDError, RuntimeError, AssertionError):
            return 0
        return len(self._video)

    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        decord_error = _import_decord().DECORDError
        for index in wanted:
            try:
                self._video.seek_accurate(index)
                frame = self._video.next().asnumpy()
            except (decord_error, RuntimeError, StopIteration) as error:
                raise LibraryGaveUp from error
            yield _without_padding(frame, self._table)

    def _release(self) -> None:
        self._video = None


def _import_decord() -> Any:
    try:
        with _without_cuda_libraries():
            import decord
    except (ImportError, OSError) as error:
        raise InputError(
            f"decord cannot be imported ({error}); the distribution to install is decord2 (pip install decord2), or "
            "choose another reader with reader=pyav."
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


@contextmanager
def _without_cuda_libraries() -> Iterator[None]:
    """Hides the nvidia-* packages, of which decord2 loads every library when it is imported, to use none on a CPU.

    That takes half a second and 600 MB in each process (36 MB are left without), and the build for GPUs is another one.
    """
    if "decord" in sys.modules:
        yield
        return
    before = {name: sys.modules[name] for name in ("nvidia",) if name in sys.modules}
    sys.modules["nvidia"] = None  # type: ignore[assignment]  # then Python says that there is none
    try:
        yield
    finally:
        del sys.modules["nvidia"]
        sys.modules.update(before)


def _without_padding(pixels: np.ndarray, table: StreamTable) -> np.ndarray:
    """uint8 [H, W, 3] out of decord's array, whose last axis also holds the row padding where frames are narrow.

    FFmpeg pads rows to a multiple of the processor's vector length, and decord takes row bytes / width for the number
    of channels: a frame 96 wide comes as [H, 96, 4].
    """
    height, width = pixels.shape[:2]
    if (height, width) not in ((table.height, table.width), (table.width, table.height)):
        raise LibraryGaveUp
    return pixels.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)
