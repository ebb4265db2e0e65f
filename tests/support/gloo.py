"""Some processes joined by gloo, to test on the CPU what several ranks do together.

``run_in_processes(number, function, *args)`` calls ``function(*args)`` on each rank and returns all results. The
function must stand at the top level of its file; arguments and results must pickle. The processes start at the first
call for their number (a few seconds, for torch's import) and stay for the next ones; each call starts from the same
seed. Most tests take two, which every test file may share: another number starts processes of its own.

Nothing can hang: a fault or ``TIMEOUT_SECONDS`` without an answer ends these processes, and the next call starts new
ones.
"""

import atexit
import importlib.util
import inspect
import pickle
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

TIMEOUT_SECONDS = 180.0  # the machine may have other things to do

_pools: dict[int, "_Processes"] = {}


def run_in_two_processes(function: Callable[..., Any], *args: Any) -> list[Any]:
    """``[result on rank 0, result on rank 1]`` of ``function(*args)``; RuntimeError with the traceback of a fault."""
    return run_in_processes(2, function, *args)


def run_in_processes(number: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Results of ``function(*args)`` in rank order; RuntimeError with the traceback of a fault."""
    if number not in _pools:
        _pools[number] = _Processes(number)
        atexit.register(_pools[number].stop)
    try:
        return _pools[number].run(function, args)
    except BaseException:
        _pools.pop(number).stop()  # the others may be waiting for one that gave up
        raise


class _Processes:
    def __init__(self, number: int) -> None:
        # Each is forked from one process that has imported all and done nothing: torch and Lightning take 7 s.
        context = torch.multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ssl_video.cli.parts"])
        self.number = number
        self.folder = tempfile.mkdtemp(prefix="gloo_")
        self.connections: list[Connection] = []
        self.processes = []
        for rank in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, number, self.folder, theirs), daemon=True)
            process.start()
            theirs.close()
            self.connections.append(ours)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> list[Any]:
        # A test file is not importable by name in the child, so the function travels as (file, name).
        request = pickle.dumps((inspect.getfile(function), function.__qualname__, args))
        for connection in self.connections:
            connection.send_bytes(request)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        results: dict[int, Any] = {}
        while len(results) < self.number:
            waiting = [connection for rank, connection in enumerate(self.connections) if rank not in results]
            ready = wait(waiting, timeout=max(deadline - time.monotonic(), 0.0))
            if not ready:
                raise RuntimeError(f"{function.__qualname__} gave no answer for {TIMEOUT_SECONDS:g} s.")
            for connection in ready:
                rank = self.connections.index(connection)
                succeeded, result = self._receive(rank)
                if not succeeded:
                    raise RuntimeError(f"{function.__qualname__} failed on rank {rank}:\n{result}")
                results[rank] = result
        return [results[rank] for rank in range(self.number)]

    def _receive(self, rank: int) -> tuple[bool, Any]:
        try:
            return pickle.loads(self.connections[rank].recv_bytes())
        except EOFError:
            return False, "The process ended without an answer."

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        for connection in self.connections:
            connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _serve(rank: int, number: int, folder: str, connection: Connection) -> None:
    """Life of one process: join, then answer requests until the pipe closes."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=(Path(folder) / "rendezvous").as_uri(),
        rank=rank,
        world_size=number,
        timeout=timedelta(seconds=TIMEOUT_SECONDS),
    )
    while True:
        try:
            file, name, args = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            torch.manual_seed(0)
            answer = pickle.dumps((True, getattr(_load(file), name)(*args)))
        except Exception:
            answer = pickle.dumps((False, traceback.format_exc()))
        connection.send_bytes(answer)


def _load(file: str) -> Any:
    """The module in ``file``, read once."""
    name = f"gloo_{Path(file).stem}_{abs(hash(file))}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
