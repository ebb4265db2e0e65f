"""A callback of steps is asked once for each of them, however many batches it takes and wherever the run goes on."""

from types import SimpleNamespace
from typing import Any

import pytest

from ssl_video.callbacks.each_step import EachStep


class Noted(EachStep):
    def __init__(self) -> None:
        self.steps: list[tuple[int, Any]] = []

    def on_step_end(self, trainer: Any, pl_module: Any, batch: Any, step: int) -> None:
        self.steps.append((step, batch))


def batches(noted: Noted, steps_after: list[int], *, begins_at: int = 0) -> list[tuple[int, Any]]:
    """What is noted where the trainer counts so many steps after each batch; batches are ``0, 1, 2, …``."""
    trainer: Any = SimpleNamespace(global_step=begins_at)
    noted.on_train_start(trainer, trainer)
    for batch, step in enumerate(steps_after):
        trainer.global_step = step
        noted.on_train_batch_end(trainer, trainer, None, batch, batch)
    return noted.steps


def test_every_batch_is_a_step() -> None:
    assert batches(Noted(), [1, 2, 3]) == [(1, 0), (2, 1), (3, 2)]


def test_batches_that_accumulate_are_one_step_and_the_last_one_is_passed_on() -> None:
    assert batches(Noted(), [0, 0, 1, 1, 1, 2]) == [(1, 2), (2, 5)]


def test_the_step_a_run_goes_on_from_is_not_done_again() -> None:
    assert batches(Noted(), [7, 8, 9], begins_at=7) == [(8, 1), (9, 2)]


def test_one_that_does_nothing_cannot_be_made() -> None:
    class Nothing(EachStep):
        pass

    with pytest.raises(TypeError, match="on_step_end"):
        Nothing()  # type: ignore[abstract]
