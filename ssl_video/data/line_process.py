"""A child process that is asked one line of JSON at a time, and is replaced when a file crashes or hangs it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SECONDS_TO_END = 5.0


class NoAnswer(Exception):
    """The child died or was silent for too long; the message says which."""


class LineProcess:
    """One child process, started on first use and again after a death.

    Args:
        program: the command; it answers each line of its standard input with one on its standard output, both JSON.
    """

    def __init__(self, program: Sequence[str]) -> None:
        self._program = program
        self._process: subprocess.Popen[str] | None = None
        self._is_killed = False

    def ask(self, question: Mapping[str, Any], *, deadline_seconds: float) -> dict[str, Any]:
        """Returns the child's answer.

        Raises:
            NoAnswer: it ended, or did not answer in time and was ended.
        """
        if self._is_killed:
            raise NoAnswer("was not asked any more")
        process = self._process = self._process or self._start()
        if self._is_killed:  # while it was being started
            process.kill()
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(deadline_seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps(question) + "\n")
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
        raise NoAnswer(f"gave no answer in {deadline_seconds:g} s" if is_late else f"ended its decoder: {_ended(code)}")

    def kill(self) -> None:
        """Ends the child at once and for good, also from another thread."""
        self._is_killed = True
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

    def _start(self) -> subprocess.Popen[str]:
        folder = str(Path(__file__).resolve().parents[2])  # holds the package, installed or not
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            self._program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C ends the parent, and the parent ends its children
        )


def _ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def answer_lines(answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Runs the child's side: answers the lines of standard input until it ends, and ends with it at once.

    Args:
        answer: makes an answer of a question; what it raises ends the child.
    """
    questions: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(questions,), daemon=True).start()
    # Whatever a C library prints must not end up among the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1) as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        while True:
            answers.write(json.dumps(dict(answer(json.loads(questions.get())))) + "\n")


def _read_lines(questions: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        questions.put(line)
    # The parent is gone, and nobody wants the answer that is being made, which may take minutes.
    os._exit(0)
