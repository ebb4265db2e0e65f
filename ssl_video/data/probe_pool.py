"""Probes many files at once, each process killed and replaced where a file crashes or hangs it."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ssl_video.data.probe import UNREADABLE

DEADLINE_SECONDS = 300.0
SECONDS_TO_END = 5.0
PROBE_PROGRAM = (sys.executable, "-m", "ssl_video.data.probe")


def probe_all(
    paths: Sequence[Path],
    *,
    num_workers: int,
    decode_all: bool = False,
    program: Sequence[str] = PROBE_PROGRAM,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Iterator[dict[str, Any]]:
    """Yields what probe_video finds of each file, in order; a file whose process dies or hangs is unreadable.

    Args:
        paths: the files.
        num_workers: processes.
        decode_all: see probe_video.
        program: the command that answers; see ssl_video.data.probe.
        deadline_seconds: time for one file.
    """
    processes = [_ProbeProcess(program, deadline_seconds) for _ in range(max(1, min(num_workers, len(paths))))]
    idle: queue.SimpleQueue[_ProbeProcess] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)

    def probe(path: Path) -> dict[str, Any]:
        process = idle.get()
        try:
            return process.probe(path, decode_all=decode_all)
        finally:
            idle.put(process)

    pool = ThreadPoolExecutor(len(processes))
    try:
        yield from pool.map(probe, paths)
    finally:
        # After an interrupt files are still being probed: their threads come back once the children are gone.
        for process in processes:
            process.kill()
        pool.shutdown(cancel_futures=True)
        for process in processes:
            process.close()


class _ProbeProcess:
    """One child process, started on first use and again after a death."""

    def __init__(self, program: Sequence[str], deadline_seconds: float) -> None:
        self._program = program
        self._deadline_seconds = deadline_seconds
        self._process: subprocess.Popen[str] | None = None

    def probe(self, path: Path, *, decode_all: bool) -> dict[str, Any]:
        """Asks the child; its death or silence is the answer that the file is unreadable."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(self._deadline_seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps({"path": str(path), "decode_all": decode_all}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            is_late = not timer.is_alive()
            timer.cancel()
        if answer.endswith("\n"):
            found: dict[str, Any] = json.loads(answer)
            return found
        code = self.close()
        reason = f"gave no answer in {self._deadline_seconds:g} s" if is_late else f"ended its decoder: {_ended(code)}"
        return {"status": UNREADABLE, "reason": reason}

    def kill(self) -> None:
        """Ends the child at once, also from another thread."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> int:
        """Waits for a child that has ended, or is about to, and returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            return process.wait(timeout=SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()

    def _start(self) -> "subprocess.Popen[str]":
        folder = str(Path(__file__).resolve().parents[2])  # holds the package, installed or not
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            self._program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C ends the index, and the index ends its children
        )


def _ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
