"""Reads a folder or a zip of numbered images as a video."""

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssl_video.data.readers.base import Box, Cut, FramePart, cut_in_order
from ssl_video.data.readers.stream import StreamTable
from ssl_video.utils.errors import UnreadableVideo

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class FramesReader:
    """A video that is stored as images, one per frame, in the order of the last number in their names.

    Numbers need not start at 0 or 1, nor be padded; images without a number are left out.
    """

    def __init__(self, path: Path, *, fps: float = 25.0, table: StreamTable | None = None) -> None:
        """Lists the images of a folder or zip.

        Args:
            path: a folder of images, or a zip with images in one folder.
            fps: frames per second, which images do not tell.
            table: of no use, as images are no stream; taken because every reader takes one.

        Raises:
            UnreadableVideo: there are no numbered images, or two with the same number.
        """
        self.path = Path(path)
        self.fps = fps
        self._zip: zipfile.ZipFile | None = None
        self._names = self._numbered(self._list())
        self.num_frames = len(self._names)
        self._shape: tuple[int, ...] | None = None

    def read(
        self, indices: Sequence[int] | np.ndarray, *, box: Box | None = None, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """See VideoReader.read."""
        return self.read_cuts([Cut(np.asarray(indices), FramePart(box, size))])[0]

    def read_cuts(self, cuts: Sequence[Cut]) -> list[np.ndarray]:
        """See VideoReader.read_cuts."""
        return cut_in_order(cuts, self._frames, num_frames=self.num_frames, name=self.path.name)

    def close(self) -> None:
        """Frees the zip."""
        if self._zip is not None:
            self._zip.close()

    def _list(self) -> list[str]:
        try:
            if self.path.is_dir():
                return [entry.name for entry in self.path.iterdir()]
            self._zip = zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            reason = getattr(error, "strerror", None) or "is neither a folder nor a zip"
            raise UnreadableVideo(f"cannot be opened: {reason}") from error
        return self._zip.namelist()

    def _numbered(self, names: list[str]) -> list[str]:
        by_number: dict[int, str] = {}
        for name in sorted(names):
            stem, _, ending = name.rpartition(".")
            digits = re.findall(r"\d+", Path(stem).name)
            if f".{ending.lower()}" not in IMAGE_ENDINGS or not digits:
                continue
            number = int(digits[-1])
            if number in by_number:
                raise UnreadableVideo(f"the images {by_number[number]} and {name} have the same number")
            by_number[number] = name
        if not by_number:
            raise UnreadableVideo(f"has no numbered images ({', '.join(IMAGE_ENDINGS)})")
        return [by_number[number] for number in sorted(by_number)]

    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        for count, index in enumerate(wanted):
            name = self._names[index]
            try:
                content = self._zip.read(name) if self._zip is not None else (self.path / name).read_bytes()
                frame = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            except (OSError, UnidentifiedImageError, zipfile.BadZipFile, ValueError) as error:
                raise UnreadableVideo(f"{count} of {len(wanted)} frames came: image {name} does not decode") from error
            self._shape = self._shape or frame.shape
            if frame.shape != self._shape:
                raise UnreadableVideo(f"image {name} is {frame.shape[:2]} where others are {self._shape[:2]}")
            yield frame
