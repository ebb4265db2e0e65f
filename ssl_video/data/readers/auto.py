"""The reader that fits a file best."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_video.data.readers.base import Box, Cut, VideoReader
from ssl_video.data.readers.frames import FramesReader
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.stream import StreamTable


class AutoReader:
    """A folder or zip of numbered images read as what it is, and every other file with PyAV.

    PyAV rather than decord since it does not decode frames that nobody wants or needs: `benchmark/reading.py` has it
    ahead on files with one keyframe and on prepared files with many, for single clips, several views and whole videos.
    Both give the same pixels wherever decord can be trusted.
    """

    def __init__(self, path: Path, *, num_threads: int = 1, table: StreamTable | None = None) -> None:
        """Opens a video.

        Args:
            path: the file.
            num_threads: decoding threads; 1 where several worker processes read.
            table: the file's table of frames where it is known.

        Raises:
            UnreadableVideo: the file has no video that can be read.
        """
        self._reader: VideoReader
        if path.suffix.lower() == ".zip" or (table is None and path.is_dir()):
            self._reader = FramesReader(path)
        else:
            self._reader = PyAVReader(path, num_threads=num_threads, table=table)
        self.num_frames = self._reader.num_frames
        self.fps = self._reader.fps

    def read(
        self, indices: Sequence[int] | np.ndarray, *, box: Box | None = None, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """See VideoReader.read."""
        return self._reader.read(indices, box=box, size=size)

    def read_cuts(self, cuts: Sequence[Cut]) -> list[np.ndarray]:
        """See VideoReader.read_cuts."""
        return self._reader.read_cuts(cuts)

    def close(self) -> None:
        """Frees the file."""
        self._reader.close()
