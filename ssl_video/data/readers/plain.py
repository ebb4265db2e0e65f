"""What readers of other libraries than PyAV share: they serve plain streams, and PyAV serves the others."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ssl_video.data.readers.base import Box, Cut, FramePart, cut_in_order
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.stream import StreamTable, scan


class LibraryGaveUp(Exception):
    """The library cannot give a frame; whether the file or the library is at fault is for PyAV to say."""


class PlainStreamReader(ABC):
    """A video read with a library that finds the right frames in plain streams only (see StreamTable.is_plain).

    In the others libraries give wrong frames without an error, or other numbers of frames. Those files go through
    PyAV, which decodes 8-bit progressive video to the same pixels; `library` says which one is at work.
    """

    def __init__(self, path: Path, *, num_threads: int = 1, table: StreamTable | None = None) -> None:
        """Opens a video.

        Args:
            path: the file.
            num_threads: decoding threads; 1 where several worker processes read.
            table: the file's table of frames where it is known.

        Raises:
            UnreadableVideo: the file has no video that can be read.
            InputError: the library is not installed.
        """
        self.path = Path(path)
        self._num_threads = num_threads
        self._table = scan(self.path) if table is None else table
        self.num_frames = self._table.num_frames
        self.fps = self._table.fps
        self._pyav: PyAVReader | None = None
        self._is_closed = False
        if not (self._table.is_plain and self._open(self._table, num_threads=num_threads) == self.num_frames):
            self._use_pyav()

    @property
    def library(self) -> str:
        """The library that decodes this file."""
        return self._name if self._pyav is None else "pyav"

    def read(
        self, indices: Sequence[int] | np.ndarray, *, box: Box | None = None, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """See VideoReader.read."""
        return self.read_cuts([Cut(np.asarray(indices), FramePart(box, size))])[0]

    def read_cuts(self, cuts: Sequence[Cut]) -> list[np.ndarray]:
        """See VideoReader.read_cuts."""
        if self._is_closed:
            raise ValueError(f"{self.path.name} is closed; open a new reader.")
        if self._pyav is None:
            try:
                return cut_in_order(cuts, self._frames, num_frames=self.num_frames, name=self.path.name)
            except LibraryGaveUp:
                self._use_pyav()
        assert self._pyav is not None
        return self._pyav.read_cuts(cuts)

    def close(self) -> None:
        """Frees the file."""
        self._is_closed = True
        self._release()
        if self._pyav is not None:
            self._pyav.close()

    def _use_pyav(self) -> None:
        self._release()
        self._pyav = PyAVReader(self.path, num_threads=self._num_threads, table=self._table)

    _name: str

    @abstractmethod
    def _open(self, table: StreamTable, *, num_threads: int) -> int:
        """Opens the file with the library and returns how many frames it counts; 0 where it cannot."""

    @abstractmethod
    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        """Yields the frames of ascending indices, uint8 [H, W, 3]; LibraryGaveUp where one does not come."""

    @abstractmethod
    def _release(self) -> None:
        """Drops the library's reader."""
