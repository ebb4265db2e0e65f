"""The decode child: reads videos for its parent, so that a file which crashes or hangs a library ends no other process.

``IsolatedDecoder`` starts it as a program and sends, through its standard input, the factory of readers and then one
request after the other. Pixels go back through memory that both share, what else there is to say as JSON through a pipe
of its own: whatever a library prints cannot end up among the answers. Nothing of torch is imported here, since there is
one such process for each loading worker.

It never outlives its parent: it ends when its standard input does, and on Linux the kernel ends it with its parent even
while a library keeps it from reading.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.decoding.decoder import DirectDecoder
from ssl_video.data.readers.base import Cut, FramePart, clip_memory
from ssl_video.data.readers.stream import StreamTable
from ssl_video.utils.errors import InputError, UnreadableVideo
from ssl_video.utils.signals import ignore_endings

LENGTH = struct.Struct("<Q")  # goes before every message, in both directions
STDERR = 2
PR_SET_PDEATHSIG = 1  # linux/prctl.h
ALIGNMENT = 64  # of clips in the shared memory: a cache line
LONGEST_REASON = 500
MIB = 2**20


class SharedPixels:
    """Memory for clips that the parent sees too: a file without a name, so that nothing is left behind in any case.

    Args:
        descriptor: of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory = np.empty(0, dtype=np.uint8)
        self._used = 0

    def clear(self) -> None:
        """Gives all of it to the clips to come."""
        self._used = 0

    def new_clip(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A clip in the shared memory, or elsewhere as long as that is too small."""
        size = int(np.prod(shape))
        start, self._used = self._used, _aligned(self._used + size)
        if start + size > len(self._memory):
            return np.empty(shape, dtype=np.uint8)
        return self._memory[start : start + size].reshape(shape)

    def place(self, clips: Sequence[NDArray[np.uint8]]) -> list[int]:
        """Sees to it that clips lie in the shared memory; returns where each begins."""
        starts = [self._start(clip) for clip in clips]
        if all(start is not None for start in starts):
            return [start for start in starts if start is not None]
        # Clips that lie in it are in the way of the others.
        clips = [clip.copy() for clip in clips]
        ends = np.cumsum([_aligned(clip.nbytes) for clip in clips]).tolist()
        self._grow(ends[-1])
        placed = [0, *ends[:-1]]
        for start, clip in zip(placed, clips, strict=True):
            self._memory[start : start + clip.nbytes] = clip.reshape(-1)
        return placed

    def _start(self, clip: NDArray[np.uint8]) -> int | None:
        if not len(self._memory) or not clip.flags.c_contiguous:
            return None
        start = clip.ctypes.data - self._memory.ctypes.data
        return start if 0 <= start <= len(self._memory) - clip.nbytes else None

    def _grow(self, size: int) -> None:
        if size > len(self._memory):
            os.ftruncate(self._descriptor, size)
            self._memory = np.frombuffer(mmap.mmap(self._descriptor, size), dtype=np.uint8)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def packed(path: Path, cuts: Sequence[Cut], table: StreamTable | None) -> bytes:
    """A request; of plain values, which pickle in a tenth of the time that arrays take."""
    plain = [(cut.indices.tolist(), cut.part.box, cut.part.size, cut.part.window) for cut in cuts]
    return pickle.dumps((str(path), plain, table), protocol=pickle.HIGHEST_PROTOCOL)


def read_clips(
    decoder: DirectDecoder, pixels: SharedPixels, path: str, plain: Sequence[Any], table: StreamTable | None
) -> dict[str, Any]:
    """Answers one request: where the clips lie, or why there are none."""
    pixels.clear()
    cuts = [Cut(np.array(indices, dtype=np.int64), FramePart(*part)) for indices, *part in plain]
    try:
        clips = decoder.decode(Path(path), cuts, table=table)
    except UnreadableVideo as fault:
        return {"unreadable": str(fault)[:LONGEST_REASON]}
    except InputError as fault:
        return {"refused": str(fault)}
    except Exception as fault:  # a library may raise anything over an odd file
        return {"unreadable": f"{type(fault).__name__}: {fault}"[:LONGEST_REASON]}
    return {
        "starts": pixels.place(clips),
        "shapes": [clip.shape for clip in clips],
        "indices": [indices for indices, *_ in plain],
    }


class OwnMemory:
    """Tells how many bytes this process has that it shares with nobody: neither libraries nor the pixels."""

    def __init__(self) -> None:
        try:
            self._statm: int | None = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:  # no Linux
            self._statm = None

    def __call__(self) -> int:
        """Now; where the system does not tell, the most there ever was, shared or not."""
        if self._statm is None:
            unit = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        resident, shared = (int(pages) for pages in os.pread(self._statm, 100, 0).split()[1:3])
        return (resident - shared) * mmap.PAGESIZE


def _receive(requests: BinaryIO) -> Any:
    """The next message; the parent is gone where there is none."""
    head = requests.read(LENGTH.size)
    message = requests.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""
    if not message:
        os._exit(0)  # not through the destructors of libraries, which may hang
    return pickle.loads(message)


def _live_no_longer_than(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def main() -> None:
    """Runs the child: file descriptors of its answers and pixels, its parent's number, and the most memory in bytes."""
    answers, descriptor, parent, most_memory = (int(word) for word in sys.argv[1:])
    _live_no_longer_than(parent)
    ignore_endings()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes are expected here, and their files are large
    requests, own_bytes = sys.stdin.buffer, OwnMemory()

    def answer(content: dict[str, Any]) -> None:
        message = json.dumps({**content, "memory": own_bytes()}).encode()
        whole = memoryview(LENGTH.pack(len(message)) + message)
        while whole:
            whole = whole[os.write(answers, whole) :]

    decoder, pixels = DirectDecoder(_receive(requests)), SharedPixels(descriptor)
    clip_memory.set(pixels.new_clip)
    # Until here what goes wrong is worth reading; from here on it is what libraries say of odd files.
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)
    answer({})
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most_memory if hard < 0 else min(most_memory, hard), hard))
    while True:
        answer(read_clips(decoder, pixels, *_receive(requests)))


if __name__ == "__main__":
    main()
