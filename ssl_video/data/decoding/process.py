"""A decode child as its parent sees it: started, asked under a deadline, and ended without a trace."""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssl_video.data.decoding.child import LENGTH
from ssl_video.data.decoding.decoder import Frames
from ssl_video.data.readers.base import ReaderFactory

PROGRAM = "ssl_video.data.decoding.child"
SECONDS_TO_START = 300.0  # Python and the reader's library may lie on a slow network disk
SECONDS_TO_END = 5.0
LONGEST_ANSWER = 2**26
PIECE = 2**16

Cause = Literal["deadline", "died", "nonsense"]


class ChildLost(Exception):
    """A child had to be given up; the message is the reason.

    Attributes:
        cause: in a word.
        may_be_earlier_video: it died after it had read other videos, any of which may have harmed it.
    """

    def __init__(self, cause: Cause, reason: str, *, may_be_earlier_video: bool = False) -> None:
        super().__init__(reason)
        self.cause = cause
        self.may_be_earlier_video = may_be_earlier_video


class DecodeProcess:
    """One child. It starts at once; `wait_until_ready` says when it can be asked.

    Args:
        open_reader: opens a file for reading frames.
        most_memory: that it may have, in bytes.

    Attributes:
        memory: of its own when it last answered, in bytes.
    """

    def __init__(self, open_reader: ReaderFactory, *, most_memory: int) -> None:
        self.memory = 0
        self._is_ready = False
        self._answered = 0
        self._owner = os.getpid()
        self._seen = np.empty(0, dtype=np.uint8)
        self._pixels = _nameless_file()
        self._answers, answers_end = os.pipe()
        words = [answers_end, self._pixels, self._owner, most_memory]
        try:
            # Not multiprocessing: a loading worker may not have children by it. A session of its own: Ctrl-C ends the
            # run, and the run ends its children.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", PROGRAM, *map(str, words)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(answers_end, self._pixels),
                env={**os.environ, "PYTHONPATH": _path(), "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        finally:
            os.close(answers_end)
        assert self._process.stdin is not None
        self._requests = self._process.stdin.fileno()
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)
        # Also at the end of a loading worker, which skips what Python does at the end of other processes.
        self._finalizer = Finalize(self, _end, args=(self._process, self._answers, self._pixels), exitpriority=10)
        self._unsent = memoryview(_framed(pickle.dumps(open_reader)))
        self._send()

    @property
    def is_of_other_process(self) -> bool:
        """Whether this process has it from another one, by a fork."""
        return self._owner != os.getpid()

    @property
    def has_ended(self) -> bool:
        """Whether it is gone already."""
        return self._process.poll() is not None

    def wait_until_ready(self) -> int:
        """Waits for the start, the first time; returns the memory that it has of its own, in bytes.

        Raises:
            RuntimeError: it does not start, which no video is to blame for.
        """
        if not self._is_ready:
            try:
                self._receive(SECONDS_TO_START)
            except ChildLost as loss:
                self.end()
                raise RuntimeError(
                    f"the decoding process does not start: it {loss}. What it said stands above; reader.isolate=false "
                    "decodes without it."
                ) from None
            self._is_ready = True
        return self.memory

    def ask(self, request: bytes, *, seconds: float) -> dict[str, Any]:
        """Sends a request and returns the answer.

        Raises:
            ChildLost: none came in time, or none that can be understood.
        """
        self._unsent = memoryview(_framed(request))
        self._send()
        answer = self._receive(seconds)
        self._answered += 1
        return answer

    def pixels(self, start: int, shape: tuple[int, ...]) -> Frames:
        """A clip in the shared memory.

        Raises:
            ValueError: it does not lie in there.
        """
        size = math.prod(shape)
        if min(start, *shape) < 0:
            raise ValueError(f"a clip of shape {shape} at byte {start}")
        if start + size > len(self._seen):
            # Not mapped beyond the file's end: reading there would end this process.
            memory = mmap.mmap(self._pixels, 0)
            self._seen = np.frombuffer(memory, dtype=np.uint8)
        return self._seen[start : start + size].reshape(shape)

    def end(self) -> None:
        """Kills it and closes what belongs to it; clips that were handed out stay."""
        self._seen = np.empty(0, dtype=np.uint8)  # the map holds the file open
        self._finalizer()

    def disown(self) -> None:
        """Closes what this process has of a child that belongs to the one it was forked from."""
        self._finalizer.cancel()
        self._process.returncode = 0  # it is not ours to wait for
        _close(self._process, self._answers, self._pixels)

    def _receive(self, seconds: float) -> dict[str, Any]:
        """The next answer; whatever is unsent is sent first."""
        until = time.monotonic() + seconds
        came = bytearray()
        size = LENGTH.size
        while len(came) < size:
            came += self._next_piece(until, seconds)
            if size == LENGTH.size <= len(came):
                size += LENGTH.unpack_from(came)[0]
                if size > LONGEST_ANSWER:
                    raise ChildLost("nonsense", f"its decoder announced an answer of {size} bytes")
        try:
            answer = dict(json.loads(came[LENGTH.size :]))
            self.memory = int(answer["memory"])
        except (ValueError, KeyError, TypeError) as fault:
            raise ChildLost("nonsense", "its decoder answered nonsense") from fault
        return answer

    def _next_piece(self, until: float, seconds: float) -> bytes:
        while True:
            poll = select.poll()
            poll.register(self._answers, select.POLLIN)
            if self._unsent:
                poll.register(self._requests, select.POLLOUT)
            left = until - time.monotonic()
            ready = dict(poll.poll(math.ceil(1000 * left))) if left > 0 else {}
            if not ready:
                raise ChildLost("deadline", f"gave no answer in {seconds:g} s")
            if self._answers in ready:
                piece = os.read(self._answers, PIECE)
                if not piece:
                    raise self._death()
                return piece
            self._send()

    def _send(self) -> None:
        """Sends as much as the pipe takes; of a child that is gone the end of its answers tells."""
        try:
            self._unsent = self._unsent[os.write(self._requests, self._unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent = memoryview(b"")

    def _death(self) -> ChildLost:
        try:
            code = self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return ChildLost("nonsense", "its decoder closed its answers")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ChildLost("died", f"ended its decoder: {name}", may_be_earlier_video=self._answered > 0)


def _framed(message: bytes) -> bytes:
    return LENGTH.pack(len(message)) + message


def _path() -> str:
    """Where this process finds modules, so that the child finds the package, installed or not, and a user's reader."""
    folders = [str(Path(__file__).resolve().parents[3]), *map(os.path.abspath, sys.path)]
    return os.pathsep.join(dict.fromkeys(folders))


def _nameless_file() -> int:
    """A file in memory that nothing else can open and that ends with the last process that has it."""
    if hasattr(os, "memfd_create"):  # not bounded by /dev/shm, which containers keep small
        return os.memfd_create("ssl_video_clips")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _end(process: subprocess.Popen[bytes], answers: int, pixels: int) -> None:
    process.kill()
    # One that waits for a dead disk cannot be ended by anybody; it goes when the disk answers.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS_TO_END)
    _close(process, answers, pixels)


def _close(process: subprocess.Popen[bytes], answers: int, pixels: int) -> None:
    assert process.stdin is not None
    process.stdin.close()
    os.close(answers)
    os.close(pixels)
