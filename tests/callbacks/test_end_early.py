"""A run is judged once, when its value is first measured from the named step on."""

from types import SimpleNamespace
from typing import Any

import pytest

from ssl_video.callbacks.check_objective import CheckObjective
from ssl_video.callbacks.end_early import EndEarly
from ssl_video.utils.errors import InputError


def judged_at(callback: EndEarly, values: dict[int, float], *, first: int = 0, steps: int = 9) -> int | None:
    """The step at which a run with these values ends, None where it doesn't."""
    trainer: Any = SimpleNamespace(should_stop=False, is_global_zero=True)
    trainer.strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    for step in range(first + 1, steps + 1):
        trainer.global_step = step
        trainer.callback_metrics = {"val/knn_top1": values[step]} if step in values else {}
        callback.on_train_batch_end(trainer, SimpleNamespace(), None, None, step)  # type: ignore[arg-type]
        if trainer.should_stop:
            return step
    callback.on_train_end(trainer, SimpleNamespace())  # type: ignore[arg-type]
    return None


def test_it_ends_at_the_first_value_from_the_step_on() -> None:
    assert judged_at(EndEarly(at_step=4, below=0.2), {3: 0.0, 6: 0.1, 9: 0.9}) == 6


def test_a_run_above_the_bar_is_not_judged_again() -> None:
    assert judged_at(EndEarly(at_step=4, below=0.2), {6: 0.2, 9: 0.0}) is None


def test_a_resumed_run_is_not_judged_again() -> None:
    first = EndEarly(at_step=4, below=0.2)
    assert judged_at(first, {4: 0.5}, steps=5) is None
    resumed = EndEarly(at_step=4, below=0.2)
    resumed.load_state_dict(first.state_dict())
    assert judged_at(resumed, {6: 0.0}, first=5) is None


def test_it_says_where_nothing_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert judged_at(EndEarly(at_step=4, below=0.2), {2: 0.0}) is None
    assert "never saw val/knn_top1; name online_knn" in capsys.readouterr().err


def test_another_ranks_decision_counts() -> None:
    callback, trainer = EndEarly(at_step=1, below=0.2), SimpleNamespace(should_stop=False, is_global_zero=False)
    trainer.strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: True)
    trainer.global_step, trainer.callback_metrics = 1, {"val/knn_top1": 0.2}
    callback.on_train_batch_end(trainer, SimpleNamespace(), None, None, 0)  # type: ignore[arg-type]
    assert trainer.should_stop


def test_a_step_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="at_step=0"):
        EndEarly(at_step=0, below=0.1)


def test_an_objective_is_looked_for_once() -> None:
    trainer: Any = SimpleNamespace(callback_metrics={"train/loss": 1.0, "data/failures": 0})
    for fine in ("train/loss", "val/knn_top1", "health/rank"):
        CheckObjective(fine).on_train_batch_end(trainer, SimpleNamespace(), None, None, 0)  # type: ignore[arg-type]
    callback = CheckObjective("train/los")
    with pytest.raises(InputError, match=r"there are train/loss\."):
        callback.on_train_batch_end(trainer, SimpleNamespace(), None, None, 0)  # type: ignore[arg-type]
