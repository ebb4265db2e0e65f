"""Loggers get the values of every n-th optimizer step, each once."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_video.callbacks.step_logging import StepLogging

TOTAL_STEPS = 7


class FakeLogger:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.saved = 0

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        self.logged.append((step, metrics))

    def save(self) -> None:
        self.saved += 1


def run(loggers: list[FakeLogger], *, every: int, first: int = 0, batches_per_step: int = 1) -> None:
    callback: Any = StepLogging()
    trainer: Any = SimpleNamespace(global_step=first, loggers=loggers, log_every_n_steps=every, callback_metrics={})
    module = SimpleNamespace(total_steps=TOTAL_STEPS)
    callback.on_train_start(trainer, module)
    for batch in range((TOTAL_STEPS - first) * batches_per_step):
        trainer.global_step = first + (batch + 1) // batches_per_step
        trainer.callback_metrics = {"train/loss": torch.tensor(float(batch)), "data/failures": 1.0, "other": 2.0}
        callback.on_train_batch_end(trainer, module, None, SimpleNamespace(epoch=3), batch)


def test_every_few_steps_and_the_last() -> None:
    logger = FakeLogger()
    run([logger], every=3)
    assert [step for step, _ in logger.logged] == [2, 5, 6]
    assert logger.logged[0][1] == {"train/loss": 2.0, "data/failures": 1.0, "epoch": 3}
    assert logger.saved == 3


def test_accumulated_batches_are_logged_once_with_the_last_values() -> None:
    logger = FakeLogger()
    run([logger], every=3, batches_per_step=2)
    assert [(step, values["train/loss"]) for step, values in logger.logged] == [(2, 5.0), (5, 11.0), (6, 13.0)]


def test_a_resume_does_not_log_its_start_again() -> None:
    logger = FakeLogger()
    run([logger], every=3, first=3, batches_per_step=2)
    assert [step for step, _ in logger.logged] == [5, 6]


@pytest.mark.parametrize("every", [0, 100])
def test_a_long_interval_leaves_the_end_and_zero_nothing(every: int) -> None:
    logger = FakeLogger()
    run([logger], every=every)
    assert [step for step, _ in logger.logged] == ([TOTAL_STEPS - 1] if every else [])


def test_no_logger_is_no_fault() -> None:
    run([], every=1)
