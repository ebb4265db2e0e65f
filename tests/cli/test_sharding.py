"""FSDP: a step of a method whose parameters are divided among processes is that of the whole method."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from ssl_video.callbacks.learning_state import ema_distance, gradient_norm
from ssl_video.cli.sharding import shard
from ssl_video.cli.train import main
from ssl_video.utils.checkpoint import read_checkpoint
from ssl_video.utils.errors import InputError
from support.folders import SMALL, labelled_folder
from support.gloo import run_in_two_processes
from support.methods import METHODS, attach, build_method, method_class, random_batch

SHARDED = [name for name in METHODS if method_class(name).shards]


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _average_gradients(method: torch.nn.Module) -> None:
    """As DDP does."""
    for parameter in method.parameters():
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad, torch.distributed.ReduceOp.SUM)
            parameter.grad /= 2


def _two_steps(name: str, divided: bool) -> tuple[float, dict[str, Tensor]]:
    """Last loss, and parameters and statistics after two optimizer steps on the same batch on each process."""
    method: Any
    method, config = build_method(name, "optimizer=sgd", "scheduler=constant", "speed.memory_format=contiguous")
    method.double()
    if divided:
        shard(method, init_device_mesh("cpu", (2,)))
        kept = sum(parameter.to_local().numel() for parameter in method.parameters())
        assert kept < 0.7 * sum(parameter.numel() for parameter in method.parameters())
    optimizer = method.configure_optimizers()["optimizer"]
    batch = random_batch(config, batch_size=4)
    batch = type(batch)(**{**vars(batch), "clips": batch.clips.double()})
    for step in range(2):
        attach(method, global_step=step)
        torch.manual_seed(step)
        loss = torch.stack(list(method.losses(batch).values())).sum()
        loss.backward()
        if not divided:
            _average_gradients(method)
        method.on_before_optimizer_step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach()), {key: _whole(value) for key, value in method.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARDED)
def test_two_steps_are_those_of_the_whole_method(name: str) -> None:
    whole = run_in_two_processes(_two_steps_whole, name)
    divided = run_in_two_processes(_two_steps_divided, name)
    for (loss, state), (other_loss, other) in zip(whole, divided, strict=True):
        assert other_loss == pytest.approx(loss, rel=1e-9)
        assert state.keys() == other.keys()
        for key in state:
            torch.testing.assert_close(other[key], state[key], rtol=1e-7, atol=1e-9, msg=key)


def _two_steps_whole(name: str) -> tuple[float, dict[str, Tensor]]:
    return _two_steps(name, divided=False)


def _two_steps_divided(name: str) -> tuple[float, dict[str, Tensor]]:
    return _two_steps(name, divided=True)


def _decayed(divided: bool) -> list[int]:
    method, _ = build_method("moco", "optimizer=adamw")
    if divided:
        shard(method, init_device_mesh("cpu", (2,)))
    return [len(group["params"]) for group in method.parameter_groups()]


@pytest.mark.slow
def test_weight_decay_still_knows_biases_from_weights() -> None:
    groups = run_in_two_processes(_decayed, True)[0]
    assert groups == _decayed(False)
    assert len(groups) == 2 and all(groups)


def _watched(divided: bool) -> tuple[float, float]:
    """Length of the gradient, and the way to the momentum copy, after a step."""
    method: Any
    method, config = build_method("moco", "optimizer=sgd", "speed.memory_format=contiguous")
    if divided:
        shard(method, init_device_mesh("cpu", (2,)))
    attach(method, global_step=1)
    batch = random_batch(config)
    torch.manual_seed(0)
    torch.stack(list(method.losses(batch).values())).sum().backward()
    if not divided:
        _average_gradients(method)
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.mul_(1.1)
    distance = ema_distance(method)
    assert distance is not None
    return float(gradient_norm(method)), float(distance)


@pytest.mark.slow
def test_gradient_and_momentum_copy_are_watched_as_a_whole() -> None:
    """Not the part of them that a process has."""
    divided = run_in_two_processes(_watched, True)
    assert divided[0] == divided[1]
    assert divided[0] == pytest.approx(run_in_two_processes(_watched, False)[0], rel=1e-4)


def _outside() -> str:
    method, _ = build_method("vcop")
    method.alone = torch.nn.Parameter(torch.zeros(3))
    try:
        shard(method, init_device_mesh("cpu", (2,)))
    except InputError as refusal:
        return str(refusal)
    return ""


@pytest.mark.slow
def test_a_parameter_that_would_not_be_synchronised_is_refused() -> None:
    assert "alone is a parameter of the method itself" in run_in_two_processes(_outside)[0]


@pytest.mark.gpu
def test_fsdp_trains_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one device; what several compute is shown on the CPU, above and in test_several_processes."""
    monkeypatch.chdir(tmp_path)
    videos = labelled_folder(tmp_path / "videos", videos=12)
    settings = ["dataset=folder", f"dataset.root={videos}", *SMALL, "trainer=gpu", "trainer.max_steps=3", "run_dir=a"]
    assert main([*settings, "strategy=fsdp"]) == 0
    assert read_checkpoint(Path("a/checkpoints/last.ckpt"))["global_step"] == 3
