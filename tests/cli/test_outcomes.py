"""What became of a sweep's jobs, kept in files."""

import os
from pathlib import Path

import pytest

from ssl_video.cli.outcomes import Outcome, forget_outcome, process_rank, read_outcome, read_outcomes, write_outcome


@pytest.fixture(autouse=True)
def first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_outcomes_come_back_by_number(tmp_path: Path) -> None:
    for number in (10, 2):
        write_outcome(tmp_path, Outcome(number, ["seed=1"], code=0, value=0.5))
    assert [outcome.number for outcome in read_outcomes(tmp_path)] == [2, 10]
    assert read_outcome(tmp_path, 10) == Outcome(10, ["seed=1"], code=0, value=0.5)
    assert read_outcome(tmp_path, 1) is None
    assert read_outcomes(tmp_path / "no such folder") == []


def test_the_first_fault_of_any_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    write_outcome(tmp_path, Outcome(3, [], code=1, reason="the cause"))
    monkeypatch.setenv("SLURM_PROCID", "0")
    write_outcome(tmp_path, Outcome(3, [], code=1, reason="connection closed by peer"))
    files = {rank: tmp_path / "outcomes" / name for rank, name in enumerate(("3.json", "3.rank1.json"))}
    os.utime(files[1], (1, 1))
    found = read_outcome(tmp_path, 3)
    assert found is not None and found.reason == "the cause"


def test_a_job_that_starts_again_takes_back_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    write_outcome(tmp_path, Outcome(3, [], code=1, reason="the node was lost"))
    forget_outcome(tmp_path, 3)
    forget_outcome(tmp_path, 3)
    assert read_outcomes(tmp_path) == []


def test_ranks_of_all_that_start_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process_rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_rank() == 1
    monkeypatch.setenv("SLURM_PROCID", "5")
    assert process_rank() == 5
    monkeypatch.setenv("RANK", "7")
    assert process_rank() == 7


def test_processes_that_lightning_starts_in_a_job_of_one_task_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert process_rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_rank() == 1
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert process_rank() == 3
