"""Progress: a plain line now and then without a terminal, a bar with one."""

import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_video.callbacks import progress
from ssl_video.callbacks.progress import SECONDS_BETWEEN_LINES, Progress

Printed = pytest.CaptureFixture[str]
TOTAL_STEPS = 100


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that the test moves."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


def trainer(step: int, *, rank: int = 0, world_size: int = 1) -> Any:
    return SimpleNamespace(
        global_step=step,
        is_global_zero=rank == 0,
        world_size=world_size,
        callback_metrics={"train/loss": torch.tensor(1.25)},
    )


def run(clock: SimpleNamespace, steps: range, *, seconds: float, rank: int = 0, world_size: int = 1) -> None:
    """Steps of `seconds` each, with 4 videos of 2 clips."""
    module: Any = SimpleNamespace(total_steps=TOTAL_STEPS)
    batch: Any = SimpleNamespace(num_clips=8)
    callback = Progress()
    callback.on_train_start(trainer(steps.start, rank=rank, world_size=world_size), module)
    for step in steps:
        clock.now += seconds
        callback.on_train_batch_end(trainer(step + 1, rank=rank, world_size=world_size), module, None, batch, step)
    callback.on_train_end(trainer(steps.stop, rank=rank, world_size=world_size), module)


def test_one_plain_line_per_half_minute(clock: SimpleNamespace, capsys: Printed) -> None:
    assert SECONDS_BETWEEN_LINES == 30
    run(clock, range(10), seconds=10)
    printed = capsys.readouterr()
    assert printed.out == ""
    # 8 clips in 10 s; after 3 steps 97 are left, at 10 s each.
    assert printed.err.splitlines() == [
        "step 3/100, loss 1.250, 1 clips/s, 16.2 min left",
        "step 6/100, loss 1.250, 1 clips/s, 15.7 min left",
        "step 9/100, loss 1.250, 1 clips/s, 15.2 min left",
    ]


def test_no_control_characters(clock: SimpleNamespace, capsys: Printed) -> None:
    run(clock, range(10), seconds=40)
    text = capsys.readouterr().err
    assert text.count("\n") == 10
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text) is None


def test_a_short_run_says_nothing(clock: SimpleNamespace, capsys: Printed) -> None:
    run(clock, range(10), seconds=1)
    assert capsys.readouterr().err == ""


def test_the_time_left_of_a_resumed_run_counts_its_own_steps(clock: SimpleNamespace, capsys: Printed) -> None:
    run(clock, range(90, 93), seconds=30)
    assert capsys.readouterr().err.splitlines()[-1].startswith("step 93/100")
    run(clock, range(90, 92), seconds=60)
    assert capsys.readouterr().err.splitlines()[-1].endswith("8.0 min left")


def test_all_ranks_clips_are_counted_and_only_the_first_prints(clock: SimpleNamespace, capsys: Printed) -> None:
    run(clock, range(3), seconds=10, world_size=10)
    assert "8 clips/s" in capsys.readouterr().err
    run(clock, range(3), seconds=10, world_size=10, rank=1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(clock: SimpleNamespace, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(clock, range(30), seconds=40)
    text = capsys.readouterr().err
    assert "pre-train" in text
    assert "loss 1.250, 0 clips/s" in text
    assert "min left" not in text
    assert "30/100" in text
