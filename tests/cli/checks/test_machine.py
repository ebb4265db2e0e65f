import resource
import socket
from pathlib import Path

import pytest

from ssl_video.cli.checks.machine import (
    GIB,
    MIB,
    Needs,
    check_cores,
    check_folder,
    check_host,
    check_machine,
    check_memory,
    check_open_files,
    check_port,
    check_shared_memory,
)

NEEDS = Needs(processes=2, num_workers=3, batch_bytes=100 * MIB, folders={})


def test_everything_is_looked_at(tmp_path: Path) -> None:
    findings = list(check_machine(Needs(1, 1, 1000, {"run folder": tmp_path / "outputs" / "run"})))
    assert [finding.name for finding in findings] == [
        *("cores", "memory", "shared memory", "open files", "run folder", "host name", "port"),
    ]
    assert not (tmp_path / "outputs").exists(), "a check leaves nothing behind"


@pytest.mark.parametrize(("cores", "level", "fix"), [(8, "ok", ""), (3, "note", "=1"), (40, "note", "=19")])
def test_cores_are_held_against_processes_and_workers(cores: int, level: str, fix: str) -> None:
    finding = check_cores(NEEDS, cores=cores)
    assert finding.level == level
    assert finding.fix.endswith(fix)


@pytest.mark.parametrize(("available", "level"), [(64 * GIB, "ok"), (2 * GIB, "fault"), (None, "ok")])
def test_memory(available: int | None, level: str) -> None:
    assert check_memory(NEEDS, available=available).level == level


@pytest.mark.parametrize(("free", "level"), [(1801 * MIB, "ok"), (64 * MIB, "fault"), (None, "ok")])
def test_shared_memory_holds_three_batches_of_each_worker(free: int | None, level: str) -> None:
    finding = check_shared_memory(NEEDS, free=free)
    assert finding.level == level
    assert ("--shm-size" in finding.fix) == (level == "fault")


@pytest.mark.parametrize(("soft", "level"), [(256, "fault"), (1024, "ok"), (resource.RLIM_INFINITY, "ok")])
def test_open_files(soft: int, level: str) -> None:
    finding = check_open_files(NEEDS, soft, 4096)
    assert finding.level == level
    assert ("ulimit -n 4096 (at most 4096" in finding.fix) == (level == "fault")


def test_a_folder_that_is_a_file_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = check_folder("cache folder", tmp_path / "file" / "cache")
    assert finding.level == "fault"
    assert "cannot be written to" in finding.told


def test_a_host_name_that_does_not_resolve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    finding = check_host("node-17")
    assert (finding.level, "MASTER_ADDR=127.0.0.1" in finding.fix) == ("note", True)
    assert "node-17" in finding.told


def test_a_port_that_is_taken_is_a_fault() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert check_port(str(server.getsockname()[1])).level == "fault"
    assert check_port(None).level == "ok"


@pytest.mark.parametrize("given", ["http", "70000"])
def test_a_port_that_is_none_is_a_fault(given: str) -> None:
    finding = check_port(given)
    assert finding.level == "fault"
    assert f"MASTER_PORT={given}" in finding.told
