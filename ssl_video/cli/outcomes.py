"""What became of each job of a sweep, one small file for each: jobs may run on other machines, and die."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ssl_video.utils.files import write_atomically


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        number: place in the sweep.
        overrides: of the job.
        code: exit code.
        reason: one line, empty where it went well.
        value: what a study compares, None where there is no study or the job failed.
    """

    number: int
    overrides: list[str]
    code: int
    reason: str = ""
    value: float | None = None


def process_rank() -> int:
    """This process's place among those of its job, whoever started it."""
    # In a job of one task Lightning starts the other processes, and all of them have the task's number.
    by_slurm = [] if os.environ.get("SLURM_NTASKS") == "1" else ["SLURM_PROCID"]
    names = ["RANK", *by_slurm, "LOCAL_RANK"]
    return int(next((os.environ[name] for name in names if name in os.environ), "0"))


def _file(sweep_dir: Path, number: int, rank: int) -> Path:
    return sweep_dir / "outcomes" / (f"{number}.json" if rank == 0 else f"{number}.rank{rank}.json")


def forget_outcome(sweep_dir: Path, number: int) -> None:
    """Takes back what this process said of a job: it was started again."""
    _file(sweep_dir, number, process_rank()).unlink(missing_ok=True)


def write_outcome(sweep_dir: Path, outcome: Outcome) -> None:
    """Says how a job ended for this process."""
    file = _file(sweep_dir, outcome.number, process_rank())
    file.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        temporary.write_text(json.dumps(asdict(outcome)) + "\n")

    write_atomically(file, write)


def read_outcome(sweep_dir: Path, number: int) -> Outcome | None:
    """How a job ended: the first fault of any of its processes, else what the first process said, if it did."""
    files = sorted((sweep_dir / "outcomes").glob(f"{number}.*json"), key=lambda file: file.stat().st_mtime_ns)
    said = {file: Outcome(**json.loads(file.read_text())) for file in files}
    failed = [outcome for outcome in said.values() if outcome.code != 0]
    return failed[0] if failed else said.get(_file(sweep_dir, number, 0))


def read_outcomes(sweep_dir: Path) -> list[Outcome]:
    """Those of all jobs that said something, by number."""
    numbers = {int(file.name.split(".")[0]) for file in (sweep_dir / "outcomes").glob("*.json")}
    found = (read_outcome(sweep_dir, number) for number in sorted(numbers))
    return [outcome for outcome in found if outcome is not None]
