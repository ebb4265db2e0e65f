"""Readers that go wrong as libraries do, by the name of the file; a decode child imports them from here."""

import ctypes
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_video.data.readers.base import Cut, clip_memory
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.stream import StreamTable
from ssl_video.utils.errors import InputError, UnreadableVideo

HEIGHT, WIDTH = 4, 6
MIB = 2**20
kept: list[bytearray] = []
seen: list[str] = []


class OddReader:
    """Frames whose pixels are their number; the file's name says what goes wrong on the way."""

    num_frames = 250
    fps = 25.0

    def __init__(self, path: Path, *, table: StreamTable | None = None) -> None:
        self.path = path
        self.table = table

    def read_cuts(self, cuts: Sequence[Cut]) -> list[np.ndarray]:
        """Reads, or does what the name says."""
        name = self.path.stem.split("_")[0]
        seen.append(name)
        clips = [_clip(cut, *((HEIGHT, WIDTH) if cut.part.box is None else cut.part.box[2:])) for cut in cuts]
        match name:
            case "few":
                return [clip[:-1] for clip in clips]
            case "missing":
                return clips[:-1]
            case "floats":
                return [clip.astype(np.float32) for clip in clips]
            case "elsewhere":
                return [np.asfortranarray(clip) for clip in clips]
        _go_wrong(name)
        return clips

    def close(self) -> None:
        """Does nothing."""


def _clip(cut: Cut, height: int, width: int) -> np.ndarray:
    clip = clip_memory.get()((len(cut.indices), height, width, 3))
    clip[:] = cut.indices.reshape(-1, 1, 1, 1)
    return clip


def _go_wrong(name: str) -> None:
    match name:
        case "hang":
            ctypes.PyDLL(None).sleep(1000)  # PyDLL: holds the interpreter's lock
        case "segfault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit":
            os._exit(3)
        case "quit":
            sys.exit(4)
        case "leak":
            kept.append(bytearray(64 * MIB))
        case "leaking":
            kept.append(bytearray(64 * MIB))
            raise KeyError("moov")
        case "bloat":
            kept.append(bytearray(1500 * MIB))
        case "raise":
            raise KeyError("moov")
        case "unreadable":
            raise UnreadableVideo("frame 3 does not decode")
        case "beyond":
            raise IndexError("frame 300 of beyond must be in 0..249")
        case "uninstalled":
            raise InputError("the library is not installed; pip install it")
        case "print":
            print("a library says")
            os.write(1, b"something")
            os.write(2, b"and more")
        case "scribble":
            os.write(int(sys.argv[1]), b"nonsense" * 10)
        case "endless":
            os.write(int(sys.argv[1]), b"\xff" * 8)
        case "shut":
            os.close(int(sys.argv[1]))
            time.sleep(1000)
        case "harmed":
            if "harming" in seen:
                os.abort()


class MixedReader:
    """A real reader for files whose name begins with good; the names of others say what goes wrong."""

    def __init__(self, path: Path, *, num_threads: int = 1, table: StreamTable | None = None) -> None:
        self.reader = DecordReader(path, table=table)
        self.odd = OddReader(path)
        self.num_frames, self.fps = self.reader.num_frames, self.reader.fps

    def read_cuts(self, cuts: Sequence[Cut]) -> list[np.ndarray]:
        """As the file's name says."""
        return self.reader.read_cuts(cuts) if self.odd.path.stem.startswith("good") else self.odd.read_cuts(cuts)

    def close(self) -> None:
        """Closes the real one."""
        self.reader.close()
