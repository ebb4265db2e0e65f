"""Decodes in a process of its own: a file may hang, crash or bloat that process, and costs no more than itself."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ssl_video.data.decoding.child import MIB, packed
from ssl_video.data.decoding.decoder import Frames, check_clips, scaled, unscaled
from ssl_video.data.decoding.process import ChildLost, DecodeProcess
from ssl_video.data.readers.base import Cut, ReaderFactory
from ssl_video.data.readers.stream import StreamTable
from ssl_video.utils.errors import InputError, UnreadableVideo

# One read may take this many times the memory at which a child is replaced after a read.
MOST_MEMORY = 4
RECYCLED = "recycled"


class IsolatedDecoder:
    """Reads through a child process, and kills and replaces it where it is late, dies or answers nonsense.

    Each process, and each thread, that uses the decoder has a child of its own, which starts with the first read and
    ends with the thread, the process or `close`. Clips may lie in memory that is shared with the child, which the next
    read overwrites.

    A child that dies may have been harmed by an earlier video. So the read is tried again in a new child, and only a
    video that ends this one too is reported. A video for which a child was lost is not tried again: what it costs, a
    deadline, would be paid in every epoch.

    Args:
        open_reader: opens a file for reading frames; it is pickled.
        deadline_seconds: for one read, from its request to its answer.
        recycle_above_mib: a child that has more memory of its own after a read is replaced; within a read it gets no
            more than four times this.
    """

    def __init__(self, open_reader: ReaderFactory, *, deadline_seconds: float, recycle_above_mib: int) -> None:
        self.open_reader = open_reader
        self.deadline_seconds = deadline_seconds
        self.recycle_above_mib = recycle_above_mib
        self._own = _Own()
        self._lost: dict[Path, str] = {}
        self._restarts: Counter[str] = Counter()

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = partial(
            IsolatedDecoder, deadline_seconds=self.deadline_seconds, recycle_above_mib=self.recycle_above_mib
        )
        return rebuild, (self.open_reader,)

    def decode(self, path: Path, cuts: Sequence[Cut], *, table: StreamTable | None = None) -> list[Frames]:
        """See Decoder.decode; clips hold until the next read.

        Raises:
            UnreadableVideo: not all of it came in time and as it was asked for.
            InputError: the reader cannot be used at all.
            RuntimeError: no child starts.
        """
        if path in self._lost:
            raise UnreadableVideo(self._lost[path])
        asked = unscaled(cuts, table)
        request = packed(path, asked, table)
        try:
            try:
                clips = self._read(request, asked)
            except ChildLost as loss:
                if not loss.may_be_earlier_video:
                    raise
                clips = self._read(request, asked)
        except ChildLost as loss:
            self._lost[path] = str(loss)
            raise UnreadableVideo(str(loss)) from loss
        check_clips(clips, asked)
        return scaled(clips, asked, cuts)

    def take_restarts(self) -> Mapping[str, int]:
        """See Decoder.take_restarts; the causes are deadline, died, nonsense and recycled."""
        restarts, self._restarts = dict(self._restarts), Counter()
        return restarts

    def close(self) -> None:
        """Ends this thread's child; the next read starts another."""
        child, self._own.child = self._own.child, None
        if child is not None:
            child.end()

    def _read(self, request: bytes, cuts: Sequence[Cut]) -> list[Frames]:
        child = self._child()
        try:
            answer = child.ask(request, seconds=self.deadline_seconds)
            clips = [] if "unreadable" in answer or "refused" in answer else _clips(child, answer, cuts)
        except ChildLost as loss:
            self._restarts[loss.cause] += 1
            self.close()
            raise
        if child.memory > self.recycle_above_mib * MIB:
            # The next one gets ready while this one's clips are made use of.
            self._restarts[RECYCLED] += 1
            self.close()
            self._own.child = self._start()
        if "unreadable" in answer:
            raise UnreadableVideo(str(answer["unreadable"]))
        if "refused" in answer:
            raise InputError(str(answer["refused"]))
        return clips

    def _child(self) -> DecodeProcess:
        child = self._own.child
        if child is not None and child.is_of_other_process:
            child.disown()
            child = None
        if child is not None and child.has_ended:  # between two reads, so no video is to blame
            self._restarts["died"] += 1
            self.close()
            child = None
        child = self._own.child = child or self._start()
        if child.wait_until_ready() > self.recycle_above_mib * MIB:
            self.close()
            raise InputError(
                f"reader.recycle_above_mib={self.recycle_above_mib} must be above the {child.memory // MIB + 1} MiB "
                "that a decoding process has before its first video; raise it."
            )
        return child

    def _start(self) -> DecodeProcess:
        return DecodeProcess(self.open_reader, most_memory=MOST_MEMORY * self.recycle_above_mib * MIB)


class _Own(threading.local):
    """What each thread has: a child, which ends with it."""

    child: DecodeProcess | None = None


def _clips(child: DecodeProcess, answer: dict[str, Any], cuts: Sequence[Cut]) -> list[Frames]:
    """The clips that an answer tells of; ChildLost where it tells nonsense, since then nothing it says holds."""
    try:
        if answer["indices"] != [cut.indices.tolist() for cut in cuts]:
            raise ChildLost("nonsense", "its decoder answered with other frames than were asked for")
        pairs = list(zip(answer["starts"], answer["shapes"], strict=True))
        return [child.pixels(int(start), tuple(int(size) for size in shape)) for start, shape in pairs]
    except (KeyError, TypeError, ValueError) as fault:
        raise ChildLost("nonsense", f"its decoder answered nonsense ({type(fault).__name__}: {fault})") from fault
