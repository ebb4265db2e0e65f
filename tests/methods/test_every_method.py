"""What holds for every method; a new one is tested by having a YAML."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_video.methods.base import SSLMethod
from ssl_video.modules.momentum_encoder import MomentumEncoder
from ssl_video.utils.config import build
from ssl_video.utils.errors import InputError
from support.methods import METHODS, attach, build_method, random_batch


def total(method: SSLMethod[Any], losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


def test_all_methods_are_found() -> None:
    assert {"moco", "vcop"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_finite_scalars(name: str) -> None:
    method, config = build_method(name)
    losses = method.losses(random_batch(config))
    assert losses
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("name", METHODS)
def test_gradient_reaches_every_parameter_of_the_backbone_and_no_momentum_copy(name: str) -> None:
    method, config = build_method(name)
    total(method, method.losses(random_batch(config))).backward()
    # The last batch norm before a mean may get an exact zero; every layer as a whole must learn.
    assert all(parameter.grad is not None for parameter in method.backbone.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.backbone.parameters() if p.ndim > 1)  # type: ignore[union-attr]
    copies = [module for module in method.modules() if isinstance(module, MomentumEncoder)]
    assert all(parameter.grad is None for module in copies for parameter in module.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_gives_the_same_losses(name: str) -> None:
    values = []
    for _ in range(2):
        method, config = build_method(name)
        torch.manual_seed(5)
        values.append(total(method, method.losses(random_batch(config))).item())
    assert values[0] == values[1]


@pytest.mark.parametrize("name", METHODS)
def test_state_round_trips(name: str) -> None:
    method, config = build_method(name)
    batch = random_batch(config)
    method.losses(batch)
    other, _ = build_method(name, "seed=1")
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    attach(method, global_step=1)
    attach(other, global_step=1)
    other.seed = method.seed
    torch.manual_seed(5)
    expected = total(method, method.losses(batch))
    torch.manual_seed(5)
    assert torch.equal(total(other, other.losses(batch)), expected)


@pytest.mark.parametrize(
    "name", [name if name in ("moco", "vcop") else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_loss_falls_on_a_fixed_batch(name: str) -> None:
    method, config = build_method(name)
    batch = random_batch(config, batch_size=6)
    run = {"total_steps": 1000}  # its first steps: where a method has phases, all are of the first
    optimizer = torch.optim.Adam((p for p in method.parameters() if p.requires_grad), lr=1e-3)
    # A queue that fills while the network learns makes the task harder; with it held still only the weights change.
    buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}
    values = []
    for step in range(25):
        attach(method, global_step=step, **run)
        for name, buffer in method.named_buffers():
            buffer.copy_(buffers[name])
        torch.manual_seed(3)  # the same permutations and dropout
        loss = total(method, method.losses(batch))
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(values[-3:]) < 0.8 * values[0]


@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_number_of_views_is_refused(name: str) -> None:
    method, config = build_method(name)
    wrong = 2 if build(config.sampler).num_views == 1 else 1
    with pytest.raises(InputError, match=f"sampler.num_views={wrong}"):
        method.check_batch(num_views=wrong, num_frames=8)


@pytest.mark.parametrize("name", METHODS)
def test_optimizer_and_schedule_are_built_for_what_learns(name: str) -> None:
    method, _ = build_method(name)
    made = method.configure_optimizers()
    trained = {id(p) for group in made["optimizer"].param_groups for p in group["params"]}
    assert trained == {id(p) for p in method.parameters() if p.requires_grad}
    assert made["lr_scheduler"]["interval"] == "step"


@pytest.mark.parametrize("name", METHODS)
def test_method_has_a_row_in_methods_md(name: str, repository: Path) -> None:
    assert f"method={name}" in (repository / "METHODS.md").read_text()


@pytest.mark.parametrize("name", ["o3n", "opn", "shuffle_and_learn", "vcop"])
def test_answers_in_evaluation_do_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    """Batch statistics that are structured by the label would be a way to read it."""
    method, config = build_method(name)
    ask: Any = method
    batch, seen, predict = random_batch(config, batch_size=6), [], ask.predict
    method.losses(batch)  # moves the running statistics
    method.eval()
    ask.predict = lambda presented: seen.append(presented) or predict(presented)
    together, _ = ask.questions(batch)
    alone = torch.cat([predict(one) for one in seen[0].split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-4)
