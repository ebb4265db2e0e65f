"""The figures of more processes: what is counted, and that the page on paper is what its command writes."""

import json
from pathlib import Path

import pytest

from benchmark.large_machines import HERE, PAGE, Job, cvrl_job, gather_bytes, moco_job, page, sum_bytes
from benchmark.scaling import _row, format_page
from benchmark.scaling_rank import loopback_bytes


def found(joined: list[float], alone: list[float]) -> dict[str, object]:
    return {
        "seconds": {"joined": joined, "alone": alone},
        "bytes_sent": {"joined": [3e6, 3e6], "alone": [1e6, 1e6]},
        "least_bytes": {"gradients": 1_500_000, "keys": 500_000},
    }


def test_a_row_compares_blocks_that_stand_beside_each_other() -> None:
    row = _row([found([2.0, 4.0], [1.0, 3.0]), found([2.0, 2.0], [1.0, 1.0])], 8)
    assert row["videos per second"].median == 4.0
    assert row["videos per second, unjoined"].high == 8.0
    assert row["share of communication"].low == 0.25
    assert row["share of communication"].median == 0.5


def test_the_page_sets_each_number_of_processes_against_one() -> None:
    spread = {"median": 4.0, "low": 3.0, "high": 5.0}
    rows = [
        {
            "method": "moco",
            "kind": "weak",
            "processes": processes,
            "videos of a step": 8 * processes,
            "videos per second": {**spread, "median": 4.0 * processes**0.5},
            "videos per second, unjoined": spread,
            "share of communication": {"median": 0.25, "low": 0.1, "high": 0.5},
            "bytes sent": {**spread, "median": 3e6},
            "bytes of others meanwhile": {**spread, "median": 1e6},
            "least bytes": {"gradients": 1_600_000},
        }
        for processes in (1, 4)
    ]
    where = {"device": "a CPU", "versions": {"torch": "2"}, "load_average_before": 0.1, "git_revision": "abc"}
    text = format_page({"scaling": {**where, "found": rows}, "launch": {**where, "found": {"seconds": spread}}})
    assert "| moco | weak | 1 | 8 | 4.0 (3.0 to 5.0) | 1.00 | 1.00 |  |  |  |" in text
    assert "| moco | weak | 4 | 32 | 8.0 (3.0 to 5.0) | 2.00 | 1.00 | 25% (10% to 50%) | 2.00 | 1.25 |" in text
    assert "| seconds | 4 | 3 to 5 |" in text


def test_bytes_of_the_loopback_only_grow() -> None:
    first = loopback_bytes()
    assert loopback_bytes() >= first >= 0


def test_bytes_on_paper() -> None:
    job = Job(name="x", videos=1, epochs=1, operations=1.0, parameters=100, embedding_bytes=10, clip_bytes=1000)
    assert sum_bytes(job, 1) == gather_bytes(job, 1) == 0
    assert sum_bytes(job, 4) == 2 * 0.75 * 400
    assert gather_bytes(job, 4) == 3 * 10 + 750


@pytest.mark.slow
def test_the_page_on_paper_is_what_its_command_writes() -> None:
    loading = json.loads((HERE / "results" / "data_path.json").read_text())["loading"]
    assert Path(PAGE).read_text() == page([cvrl_job(), moco_job()], loading)
