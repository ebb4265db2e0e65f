"""Probes many files at once, each process killed and replaced where a file crashes or hangs it."""

import queue
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ssl_video.data.line_process import LineProcess, NoAnswer
from ssl_video.data.probe import UNREADABLE

DEADLINE_SECONDS = 300.0
FILES_OF_A_PROCESS = 16  # at least, where only their ends are decoded: it takes as long to start
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
        num_workers: processes; fewer for a few files.
        decode_all: see probe_video.
        program: the command that answers; see ssl_video.data.probe.
        deadline_seconds: time for one file.
    """
    number = max(1, min(num_workers, len(paths) if decode_all else -(-len(paths) // FILES_OF_A_PROCESS)))
    processes = [LineProcess(program) for _ in range(number)]
    idle: queue.SimpleQueue[LineProcess] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)

    def probe(path: Path) -> dict[str, Any]:
        process = idle.get()
        try:
            question = {"path": str(path), "decode_all": decode_all}
            return process.ask(question, deadline_seconds=deadline_seconds)
        except NoAnswer as fault:
            return {"status": UNREADABLE, "reason": str(fault)}
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
