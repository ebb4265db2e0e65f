"""metrics.csv: every optimizer step once, whatever was interrupted."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_video.callbacks.metrics_csv import MetricsCSV

BATCHES: Any = [SimpleNamespace(epoch=epoch) for epoch in range(3)]


def trainer(step: int, *, rank: int = 0, **metrics: float) -> Any:
    """A trainer that has done `step` optimizer steps."""
    values = {f"train/{name}": torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(global_step=step, is_global_zero=rank == 0, callback_metrics=values | {"other": 1})


def run(
    file: Path, steps: range, *, save_at: tuple[int, ...] = (), end: str = "on_train_end", **metrics: float
) -> MetricsCSV:
    """Does `steps`, each with a loss of its own; `end` is the hook that ends the run ("" is a kill)."""
    callback: Any = MetricsCSV(file)
    callback.on_train_start(trainer(steps.start), None)
    for step in steps:
        now = trainer(step + 1, loss=step + 0.5, **metrics)
        callback.on_train_batch_end(now, None, None, BATCHES[step // 3], 0)
        if step + 1 in save_at:
            callback.on_save_checkpoint(now, None, {})
    if end:
        getattr(callback, end)(trainer(steps.stop), None, *([RuntimeError()] if end == "on_exception" else []))
    return callback  # type: ignore[no-any-return]


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def steps_of(file: Path) -> list[int]:
    return [int(row["step"]) for row in read(file)]


def test_one_row_per_step_from_zero(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    run(file, range(5), info_nce=0.25)
    rows = read(file)
    assert list(rows[0]) == ["epoch", "step", "train/loss", "train/info_nce"]
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["epoch"] for row in rows] == ["0", "0", "0", "1", "1"]
    assert [float(row["train/loss"]) for row in rows] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert {row["train/info_nce"] for row in rows} == {"0.25"}


def test_values_are_those_of_the_step_not_of_the_end(tmp_path: Path) -> None:
    """Values are kept as tensors; a metric tensor that is replaced later must not change the rows before."""
    file = tmp_path / "metrics.csv"
    run(file, range(3), save_at=(3,))
    assert [float(row["train/loss"]) for row in read(file)] == [0.5, 1.5, 2.5]


def test_rows_are_written_with_the_checkpoint_and_not_before(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    run(file, range(3), end="")
    assert not file.exists()
    run(file, range(5), save_at=(2, 4), end="")
    assert steps_of(file) == [0, 1, 2, 3]


@pytest.mark.parametrize("end", ["on_train_end", "on_exception"])
def test_the_last_rows_are_written_at_the_end_and_at_a_fault(tmp_path: Path, end: str) -> None:
    file = tmp_path / "metrics.csv"
    run(file, range(5), save_at=(2,), end=end)
    assert steps_of(file) == [0, 1, 2, 3, 4]


def test_a_resume_drops_what_it_will_do_again(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    run(file, range(5), save_at=(2,), end="on_exception")  # rows 2, 3, 4 lie beyond the checkpoint of step 2
    run(file, range(2, 7), save_at=(4, 6))
    assert steps_of(file) == [0, 1, 2, 3, 4, 5, 6]
    assert [float(row["train/loss"]) for row in read(file)] == [step + 0.5 for step in range(7)]


def test_a_run_from_the_start_empties_the_file(tmp_path: Path) -> None:
    """A run killed before its first checkpoint starts again at step 0."""
    file = tmp_path / "metrics.csv"
    run(file, range(3), end="on_exception")
    run(file, range(2))
    assert steps_of(file) == [0, 1]


def test_half_a_line_left_by_a_kill_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    run(file, range(3))
    with file.open("a") as text:
        text.write("1,3")
    run(file, range(3, 5))
    assert steps_of(file) == [0, 1, 2, 3, 4]
    assert all(None not in row.values() for row in read(file))


def test_accumulated_batches_are_one_row(tmp_path: Path) -> None:
    callback: Any = MetricsCSV(tmp_path / "metrics.csv")
    callback.on_train_start(trainer(0), None)
    for step in (0, 1, 1, 2):  # the optimizer steps after every second batch
        callback.on_train_batch_end(trainer(step, loss=float(step)), None, None, BATCHES[0], 0)
    callback.on_train_end(trainer(2), None)
    assert steps_of(tmp_path / "metrics.csv") == [0, 1]


def test_a_value_that_appears_later_gets_a_column(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    run(file, range(2))
    run(file, range(2, 4), accuracy=0.5)
    rows = read(file)
    assert list(rows[0]) == ["epoch", "step", "train/loss", "train/accuracy"]
    assert [row["train/accuracy"] for row in rows] == ["", "", "0.5", "0.5"]


def test_a_value_that_appears_between_two_checkpoints_gets_a_column(tmp_path: Path) -> None:
    """Not only in the first row of what is written: later rows may have more values."""
    file = tmp_path / "metrics.csv"
    callback: Any = MetricsCSV(file)
    callback.on_train_start(trainer(0), None)
    callback.on_train_batch_end(trainer(1, loss=0.5), None, None, BATCHES[0], 0)
    callback.on_save_checkpoint(trainer(1), None, {})
    callback.on_train_batch_end(trainer(2, loss=1.5), None, None, BATCHES[0], 0)
    callback.on_train_batch_end(trainer(3, loss=2.5, accuracy=1.0), None, None, BATCHES[0], 0)
    callback.on_train_end(trainer(3), None)
    assert [row.get("train/accuracy") for row in read(file)] == ["", "", "1.0"]


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    callback: Any = MetricsCSV(tmp_path / "metrics.csv")
    callback.on_train_start(trainer(0, rank=1), None)
    callback.on_train_batch_end(trainer(1, rank=1, loss=1.0), None, None, BATCHES[0], 0)
    callback.on_train_end(trainer(1, rank=1), None)
    assert not list(tmp_path.iterdir())
