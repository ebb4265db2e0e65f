"""The schedule of TCL: down along a cosine, then a jump."""

import math
from typing import Any

import pytest
import torch
from torch.optim import SGD

from ssl_video.optim.schedules import CosineRestart
from ssl_video.utils.errors import InputError


def factors(steps: int, **settings: Any) -> list[float]:
    schedule = CosineRestart(SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02), **settings)
    return [0.02 * schedule.factor_at(step) for step in range(steps)]


PAPER: dict[str, Any] = {"total_steps": 4000, "steps_per_epoch": 10, "restart_at": 350.0, "restart_in": "epochs"}


def test_values_of_the_released_code() -> None:
    """Down to .00079 at epoch 349, then .002, and .00193 at the end."""
    rates = factors(4000, per_epoch=True, **PAPER)
    assert rates[0] == pytest.approx(0.02)
    assert rates[3490] == pytest.approx(0.00079, abs=5e-6)
    assert rates[3499] == rates[3490]
    assert rates[3500] == pytest.approx(0.002)
    assert rates[3999] == pytest.approx(0.00193, abs=5e-6)
    expected = [0.01 * (1 + math.cos(math.pi * (step // 10) / 400)) for step in range(3500)]
    assert rates[:3500] == pytest.approx(expected)


def test_to_the_end_of_each_phase() -> None:
    rates = factors(4000, cosine_to_phase_end=True, **PAPER)
    assert rates[1750] == pytest.approx(0.01)
    assert rates[3499] < 1e-8
    assert rates[3500] == pytest.approx(0.002)
    assert rates[3750] == pytest.approx(0.001)
    assert rates[3999] < 1e-7


def test_share_of_the_run_and_no_restart() -> None:
    share = factors(80, total_steps=80, steps_per_epoch=3, restart_at=0.875, restart_in="share")
    assert [index for index in range(1, 80) if share[index] > share[index - 1]] == [70]
    none = factors(80, total_steps=80, steps_per_epoch=3, restart_at=1.0)
    assert none == pytest.approx([0.01 * (1 + math.cos(math.pi * step / 80)) for step in range(80)])


def test_is_a_function_of_the_step_for_every_group() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.4, 0.04)]
    optimizer = SGD(groups, lr=1.0)
    schedule = CosineRestart(optimizer, total_steps=20, steps_per_epoch=5, restart_at=0.5)
    for step in range(20):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
            [0.4 * schedule.factor_at(step), 0.04 * schedule.factor_at(step)]
        )
        optimizer.step()
        schedule.step()


def test_a_restart_outside_the_run_is_refused() -> None:
    with pytest.raises(InputError, match="restart_at=350"):
        factors(1, total_steps=20, steps_per_epoch=5, restart_at=350.0, restart_in="share")
