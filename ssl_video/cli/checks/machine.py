"""Whether the machine gives a run what it needs: cores, memory, disk, files, ports."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssl_video.cli.checks.finding import Finding

MIB, GIB = 2**20, 2**30
# A DataLoader keeps two batches of each worker ready.
BATCHES_READY = 2
# A worker with torch, and its decoding process.
WORKER_BYTES = 450 * MIB
DESCRIPTORS_OF_A_BATCH = 32
DESCRIPTORS_OF_A_WORKER = 24
RUN_BYTES = 5 * GIB


@dataclass(frozen=True)
class Needs:
    """What a run asks of the machine.

    Attributes:
        processes: of training, on this machine.
        num_workers: of each.
        batch_bytes: of one batch, as it goes through shared memory.
        folders: where the run writes, by name.
    """

    processes: int
    num_workers: int
    batch_bytes: int
    folders: dict[str, Path]


def check_machine(needs: Needs) -> Iterator[Finding]:
    """Everything that is not the data."""
    yield check_cores(needs, cores=num_cores())
    yield check_memory(needs, available=available_memory())
    yield check_shared_memory(needs, free=_free_bytes(Path("/dev/shm")))
    yield check_open_files(needs, *resource.getrlimit(resource.RLIMIT_NOFILE))
    for name, folder in needs.folders.items():
        yield check_folder(name, folder)
    yield check_host(socket.gethostname())
    yield check_port(os.environ.get("MASTER_PORT"))


def num_cores() -> int:
    """Cores that this process may use: a job of a cluster or a container often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_cores(needs: Needs, *, cores: int) -> Finding:
    """Cores against processes and their workers."""
    busy = needs.processes * (needs.num_workers + 1)
    told = f"{cores} usable for {needs.processes} x (1 + {needs.num_workers} workers)"
    fitting = f"dataset.num_workers={max(1, cores // needs.processes - 1)}"
    if busy > 2 * cores:
        return Finding("note", "cores", told, f"more workers than cores only wait for each other: {fitting}")
    if cores > 2 * busy:
        return Finding("note", "cores", told, f"cores stand idle: {fitting}")
    return Finding("ok", "cores", told)


def available_memory() -> int | None:
    """Bytes that can still be taken, within the limit of the container; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no container, or "max"
        return free
    return min(free or limit, max(0, limit - used))


def check_memory(needs: Needs, *, available: int | None) -> Finding:
    """Workers and the batches they keep ready, against what is free."""
    workers = needs.processes * needs.num_workers
    wanted = workers * (WORKER_BYTES + BATCHES_READY * needs.batch_bytes) + needs.processes * 2 * GIB
    told = f"about {_size(wanted)} for {workers} workers and their batches"
    if available is None:
        return Finding("ok", "memory", f"{told}; the system does not say what is free")
    told += f", {_size(available)} free"
    if wanted > available:
        return Finding("fault", "memory", told, "lower dataset.num_workers or batch_size")
    return Finding("ok", "memory", told)


def check_shared_memory(needs: Needs, *, free: int | None) -> Finding:
    """Batches travel from workers through /dev/shm; a container gives it 64 MB."""
    wanted = needs.processes * needs.num_workers * (BATCHES_READY + 1) * needs.batch_bytes
    if free is None:
        return Finding("ok", "shared memory", "no /dev/shm here")
    told = f"{_size(wanted)} of batches, {_size(free)} free in /dev/shm"
    if wanted > free:
        fix = "docker run --shm-size=16g (or --ipc=host); or lower dataset.num_workers or batch_size"
        return Finding("fault", "shared memory", told, f"a worker would die of a bus error: {fix}")
    return Finding("ok", "shared memory", told)


def check_open_files(needs: Needs, soft: int, hard: int) -> Finding:
    """File descriptors: each tensor on its way from a worker holds one."""
    per_worker = BATCHES_READY * DESCRIPTORS_OF_A_BATCH + DESCRIPTORS_OF_A_WORKER
    wanted = 128 + needs.num_workers * per_worker
    limit = "no limit" if soft == resource.RLIM_INFINITY else str(soft)
    told = f"about {wanted} of {limit}"
    if soft != resource.RLIM_INFINITY and wanted > soft:
        most = "" if hard == resource.RLIM_INFINITY else f" (at most {hard} without an administrator)"
        return Finding("fault", "open files", told, f"ulimit -n {max(4096, 2 * wanted)}{most}")
    return Finding("ok", "open files", told)


def check_folder(name: str, folder: Path) -> Finding:
    """Whether a folder can be written to, and how much fits in."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as fault:
        return Finding("fault", name, f"{there} cannot be written to ({fault.strerror})", "name another folder")
    free = shutil.disk_usage(there).free
    told = f"{folder}, {_size(free)} free"
    if free < RUN_BYTES:
        return Finding("note", name, told, f"checkpoints and caches of a run can take {_size(RUN_BYTES)}; make room")
    return Finding("ok", name, told)


def check_host(name: str) -> Finding:
    """Whether the machine finds itself by its name: several processes meet there."""
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        fix = f"add `127.0.0.1 {name}` to /etc/hosts, or export MASTER_ADDR=127.0.0.1 on one machine"
        return Finding("note", "host name", f"{name} does not resolve: a process group would wait for ever", fix)
    return Finding("ok", "host name", f"{name} resolves")


def check_port(given: str | None) -> Finding:
    """Whether processes can meet at a port of this machine."""
    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", int(given) if given else 0))
        except (OSError, ValueError, OverflowError) as fault:
            told = f"MASTER_PORT={given} cannot be had ({fault})"
            return Finding("fault", "port", told, "unset MASTER_PORT, or set it to a free port above 1023")
        return Finding("ok", "port", f"{server.getsockname()[1]} on this machine can be had")


def _free_bytes(folder: Path) -> int | None:
    return shutil.disk_usage(folder).free if folder.is_dir() else None


def _size(number: float) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / MIB:.0f} MiB"
