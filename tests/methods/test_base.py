"""What a step shows of itself, and what its randomness follows from."""

from typing import Any

import torch
from torch import Tensor

from ssl_video.methods.base import SSLMethod
from support.methods import attach, build_method


def stepping(*, accumulate: int = 1) -> tuple[SSLMethod[Any], dict[str, Tensor]]:
    """A method whose losses are its batch, and what callbacks see of it."""
    method, _ = build_method("vcop")
    own: Any = method
    own.losses = lambda batch: dict(batch)
    attach(method)
    trainer: Any = method._trainer
    trainer.accumulate_grad_batches, trainer.callback_metrics = accumulate, {"other": torch.tensor(7.0)}
    return method, trainer.callback_metrics


def test_losses_are_summed_and_shown_by_name() -> None:
    method, shown = stepping()
    method.observed["accuracy"] = torch.tensor(0.5)
    total = method.training_step({"a": torch.tensor(1.0, requires_grad=True), "b": torch.tensor(2.0)}, 0)
    assert total.item() == 3.0 and total.requires_grad
    values = {name: float(value) for name, value in shown.items()}
    assert values == {"other": 7.0, "train/a": 1.0, "train/b": 2.0, "train/accuracy": 0.5, "train/loss": 3.0}
    assert not any(value.requires_grad for value in shown.values())


def test_a_value_that_a_step_does_not_have_is_not_that_of_the_step_before() -> None:
    method, shown = stepping()
    method.training_step({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, 0)
    method.training_step({"a": torch.tensor(3.0)}, 1)
    assert set(shown) == {"other", "train/a", "train/loss"}


def test_accumulated_batches_show_their_mean() -> None:
    method, shown = stepping(accumulate=3)
    for batch, value in enumerate((1.0, 2.0, 6.0, 10.0)):
        method.training_step({"a": torch.tensor(value)}, batch)
        if batch == 2:
            assert float(shown["train/a"]) == float(shown["train/loss"]) == 3.0
    assert float(shown["train/a"]) == 10.0


def test_randomness_follows_from_seed_step_and_part_as_by_manual_seed() -> None:
    method, _ = stepping(accumulate=2)
    drawn = []
    own: Any = method
    own.losses = lambda batch: drawn.append(torch.rand(3)) or {"a": torch.tensor(0.0)}
    for step, batch in ((0, 0), (0, 1), (1, 2), (0, 0)):
        attached: Any = method._trainer
        attached.global_step = step
        method.training_step({}, batch)
    assert torch.equal(drawn[0], drawn[3])
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    torch.manual_seed((method.seed * 1_000_003 + 1) * 4_099)
    assert torch.equal(drawn[2], torch.rand(3))
