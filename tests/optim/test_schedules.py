import copy
import math

import pytest
import torch
from torch.optim import SGD

from ssl_video.optim.schedules import Constant, MultiStep, WarmupCosine
from ssl_video.utils.errors import InputError


def make_optimizer() -> SGD:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.4, 0.04)]
    return SGD(groups, lr=1.0)


def rates(schedule_of, steps: int, **settings) -> list[list[float]]:
    """Learning rates of both groups used at each optimizer step."""
    optimizer = make_optimizer()
    schedule = schedule_of(optimizer, **settings)
    used = []
    for _ in range(steps):
        used.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return used


def factors(schedule_of, steps: int, **settings) -> list[float]:
    used = rates(schedule_of, steps, **settings)
    for first, second in used:
        assert first == pytest.approx(10 * second)
    return [first / 0.4 for first, _ in used]


def test_constant():
    assert rates(Constant, 12, total_steps=10, steps_per_epoch=5) == [[0.4, 0.04]] * 12


def test_cosine_without_warmup():
    used = factors(WarmupCosine, 22, total_steps=20, steps_per_epoch=5)
    assert used[:20] == pytest.approx([(1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)])
    assert used[20:] == [0.0, 0.0]


def test_warmup_to_the_cosines_own_value():
    # Spec of the rho study: 35 of 200 epochs end at .926 of the base learning rate; the cosine is not restarted.
    settings = {"total_steps": 2000, "steps_per_epoch": 10, "warmup_epochs": 35, "rises_to": "cosine_value"}
    used = factors(WarmupCosine, 2000, warmup_start_factor=0.02, **settings)
    assert used[0] == pytest.approx(0.02)
    assert used[350] == pytest.approx(0.926, abs=5e-4)
    assert used[175] == pytest.approx((0.02 + used[350]) / 2)
    assert used[1000] == pytest.approx(0.5)
    assert max(used) == used[350]


def test_warmup_to_the_full_rate_then_cosine_over_the_rest():
    used = factors(WarmupCosine, 100, total_steps=100, steps_per_epoch=10, warmup_epochs=2, final_factor=0.1)
    assert used[:21] == pytest.approx([step / 20 for step in range(21)])
    assert used[60] == pytest.approx(0.55)
    assert used[99] == pytest.approx(0.1, abs=1e-3)


def test_warmup_by_a_fraction_of_an_epoch():
    used = factors(WarmupCosine, 5, total_steps=100, steps_per_epoch=4, warmup_epochs=0.625)  # 2.5 steps
    assert used[:3] == pytest.approx([0, 0.4, 0.8])
    assert 0.99 < used[3] < 1.0


def test_milestones():
    used = factors(MultiStep, 12, total_steps=12, steps_per_epoch=4, milestones_epochs=[1, 2.5], factor=0.5)
    assert used == pytest.approx([1] * 4 + [0.5] * 6 + [0.25] * 2)


def test_milestones_in_steps():
    used = factors(MultiStep, 12, total_steps=12, steps_per_epoch=5, milestones_steps=[3, 10], factor=0.5)
    assert used == pytest.approx([1] * 3 + [0.5] * 7 + [0.25] * 2)


@pytest.mark.parametrize("rises_to", ["full", "cosine_value"])
def test_resume_goes_on_exactly(rises_to):
    settings = {"total_steps": 30, "steps_per_epoch": 5, "warmup_epochs": 2, "rises_to": rises_to}
    expected = rates(WarmupCosine, 30, **settings)
    optimizer = make_optimizer()
    schedule = WarmupCosine(optimizer, **settings)
    for _ in range(7):
        optimizer.step()
        schedule.step()
    state = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
    optimizer = make_optimizer()
    schedule = WarmupCosine(optimizer, **settings)
    optimizer.load_state_dict(state[0])
    schedule.load_state_dict(state[1])
    for step in range(7, 30):
        assert [group["lr"] for group in optimizer.param_groups] == expected[step]
        optimizer.step()
        schedule.step()


def test_the_state_loads_with_weights_only(tmp_path):
    for schedule in (
        WarmupCosine(make_optimizer(), total_steps=9, steps_per_epoch=3, warmup_epochs=1),
        MultiStep(make_optimizer(), total_steps=9, steps_per_epoch=3, milestones_epochs=(1, 2)),
    ):
        torch.save(schedule.state_dict(), tmp_path / "state.pt")
        assert torch.load(tmp_path / "state.pt", weights_only=True)["last_epoch"] == 0


def test_a_run_that_ends_within_its_warm_up_only_rises():
    for rises_to in ("full", "cosine_value"):
        schedule = WarmupCosine(make_optimizer(), total_steps=3, steps_per_epoch=10, warmup_epochs=3, rises_to=rises_to)
        factors = [schedule.factor_at(step) for step in range(3)]
        assert factors == sorted(factors)
        assert all(0 <= factor < 1 for factor in factors)


def test_wrong_values_are_refused():
    with pytest.raises(InputError, match=r"warmup_epochs=-1 must be 0 or more"):
        WarmupCosine(make_optimizer(), total_steps=30, steps_per_epoch=10, warmup_epochs=-1)
    with pytest.raises(ValueError, match="'half'"):
        WarmupCosine(make_optimizer(), total_steps=30, steps_per_epoch=10, rises_to="half")
    with pytest.raises(ValueError, match="total_steps=0"):
        Constant(make_optimizer(), total_steps=0, steps_per_epoch=10)
    for milestones in ({}, {"milestones_epochs": [1.0], "milestones_steps": [10]}):
        with pytest.raises(InputError, match="give one of them"):
            MultiStep(make_optimizer(), total_steps=30, steps_per_epoch=10, **milestones)
