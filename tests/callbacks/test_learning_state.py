"""Gradient, momentum copies and queues, as found in a method."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_video.callbacks.learning_state import QueueWatch, ema_distance, gradient_norm, queue_of
from ssl_video.modules.feature_queue import FeatureQueue
from support.methods import attach, build_method, random_batch


def test_gradient_norm_is_that_of_all_gradients_together() -> None:
    method, config = build_method("simclr")
    sum(method.losses(random_batch(config)).values()).backward()  # type: ignore[union-attr]
    flat = torch.cat([one.grad.flatten() for one in method.parameters() if one.grad is not None])
    assert float(gradient_norm(method)) == pytest.approx(float(flat.norm()), rel=1e-3)
    scaler: Any = SimpleNamespace(get_scale=lambda: 8.0)
    assert float(gradient_norm(method, scaler=scaler)) == pytest.approx(float(flat.norm()) / 8, rel=1e-3)


@pytest.mark.parametrize(("momentum", "lags"), [(0.9, True), (0.0, False)])
def test_a_copy_lags_behind_unless_its_momentum_is_0(momentum: float, lags: bool) -> None:
    method, config = build_method(
        "byol", f"method.momentum={momentum}", "method.momentum_schedule=constant", "scheduler=constant"
    )
    assert ema_distance(method) is None  # before the first step
    made: Any = method.configure_optimizers()
    for step in range(2):
        attach(method, global_step=step)
        sum(method.losses(random_batch(config, seed=step)).values()).backward()  # type: ignore[union-attr]
        distance = ema_distance(method)
        made["optimizer"].step()
    assert distance is not None
    assert (float(distance) > 1e-5) == lags
    assert lags or float(distance) == 0


def test_methods_without_copy_or_queue_have_none() -> None:
    method, _ = build_method("vcop")
    assert ema_distance(method) is None and queue_of(method) is None
    assert queue_of(build_method("moco")[0]) is not None


def test_a_queue_is_watched_between_two_looks() -> None:
    queue = FeatureQueue(10, 2)
    watch = QueueWatch(queue, step=0)
    assert watch.look(1) == {"queue_noise_share": 1.0}

    def push(steps: int) -> None:
        for _ in range(steps):
            queue.push(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))

    push(2)
    found = watch.look(3)
    assert found == {"queue_noise_share": pytest.approx(0.4), "queue_oldest_steps": 1, "queue_mean_steps": 0.5}
    push(4)
    found = watch.look(7)
    assert found == {
        "queue_noise_share": 0,
        "queue_oldest_steps": 3,
        "queue_mean_steps": pytest.approx((3 + 6 + 3) / 10),
    }
    assert watch.look(9) == {"queue_noise_share": 0}  # nothing was added: no age
