"""What holds for every method that makes the clips of a video agree, with a batch for negatives or without any."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import SSLMethod
from ssl_video.modules.momentum_encoder import MomentumEncoder
from ssl_video.modules.sync_batch_norm import SyncBatchNorm
from ssl_video.utils.distributed import rank, world_size
from support.gloo import run_in_two_processes
from support.methods import attach, build_method, random_batch

METHODS = ["byol", "cvrl", "moco_v3", "simclr", "swav"]
WITH_COPY = ["byol", "moco_v3"]
TENSORS = ("clips", "indices", "labels", "rows", "videos", "positions")


def build_double(name: str, *overrides: str) -> tuple[SSLMethod[Any], Any]:
    """In double precision, so that two ways to the same number agree to the last places."""
    method, config = build_method(name, *overrides)
    return method.double(), config


def batch_of(config: Any, *, batch_size: int) -> ClipBatch:
    batch = random_batch(config, batch_size=batch_size)
    return replace(batch, clips=batch.clips.double())


def rows_of(batch: ClipBatch, rows: Any) -> ClipBatch:
    return replace(batch, **{name: getattr(batch, name)[rows] for name in TENSORS})


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("name", METHODS)
def test_loss_does_not_depend_on_the_order_of_the_batch(name: str) -> None:
    values = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        method, config = build_double(name)
        values.append(total(method.losses(rows_of(batch_of(config, batch_size=4), order))).item())
    assert values[0] == pytest.approx(values[1], rel=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_std_of_embeddings_tells_a_collapse(name: str) -> None:
    method, config = build_method(name)
    batch = random_batch(config)
    method.losses(batch)
    assert 0.1 < float(method.observed["embedding_std"]) <= 1.0
    method.eval()  # in train mode, batch norm tells equal clips apart by their rounding errors
    method.losses(replace(batch, clips=batch.clips[:1, :1].expand_as(batch.clips)))
    assert float(method.observed["embedding_std"]) < 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_batch_norm_of_all_ranks_is_the_default_and_changes_no_name(name: str) -> None:
    method, _ = build_method(name)
    plain, _ = build_method(name, "method.sync_batch_norm=false")
    kinds = {type(m) for m in method.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)}
    assert kinds == {SyncBatchNorm}
    assert not any(isinstance(m, SyncBatchNorm) for m in plain.modules())
    plain.load_state_dict(method.state_dict())


@pytest.mark.parametrize("name", WITH_COPY)
def test_copy_is_the_network_with_momentum_zero_and_stays_with_momentum_one(name: str) -> None:
    for momentum in (0.0, 1.0):
        method, config = build_method(name, f"method.momentum={momentum}", "method.momentum_schedule=constant")
        copy = next(m for m in method.modules() if isinstance(m, MomentumEncoder))
        start = [parameter.clone() for parameter in copy.parameters()]
        with torch.no_grad():
            for parameter in [*method.backbone.parameters(), *method.projector.parameters()]:  # type: ignore[operator,union-attr]
                parameter.add_(0.01)
        total(method.losses(random_batch(config))).backward()
        online = [*method.backbone.parameters(), *method.projector.parameters()]  # type: ignore[operator,union-attr]
        expected = online if momentum == 0.0 else start
        assert all(torch.equal(a, b) for a, b in zip(copy.parameters(), expected, strict=True))
        assert all(parameter.grad is None for parameter in copy.parameters())


@pytest.mark.parametrize("name", WITH_COPY)
def test_copy_leaves_the_predictor_out_and_moves_once_per_step(name: str) -> None:
    method, config = build_method(name)
    copy = next(m for m in method.modules() if isinstance(m, MomentumEncoder))
    count = sum(p.numel() for part in (method.backbone, method.projector) for p in part.parameters())  # type: ignore[union-attr]
    assert sum(p.numel() for p in copy.parameters()) == count
    with torch.no_grad():
        next(method.backbone.parameters()).add_(1.0)
    method.losses(random_batch(config))
    moved = [parameter.clone() for parameter in copy.parameters()]
    method.losses(random_batch(config))  # the second part of an accumulated batch
    assert all(torch.equal(a, b) for a, b in zip(copy.parameters(), moved, strict=True))
    attach(method, global_step=1)
    method.losses(random_batch(config))
    assert not all(torch.equal(a, b) for a, b in zip(copy.parameters(), moved, strict=True))


def _loss_and_gradient(name: str) -> tuple[float, Tensor, Tensor]:
    """A step on this rank's part of a global batch of 8, in train mode; averaged over ranks as DDP does."""
    method, config = build_double(name)
    share = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    loss = total(method.losses(rows_of(batch_of(config, batch_size=8), share)))
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
    value = loss.detach().clone()
    if world_size() > 1:
        torch.distributed.all_reduce(gradient)
        torch.distributed.all_reduce(value)
    statistics = torch.cat([b.flatten() for n, b in method.named_buffers() if "running" in n])
    return value.item() / world_size(), gradient / world_size(), statistics


@pytest.mark.slow
@pytest.mark.parametrize("name", [METHODS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS[1:])])
def test_two_processes_give_the_value_gradient_and_statistics_of_one(name: str) -> None:
    value, gradient, statistics = _loss_and_gradient(name)
    assert gradient.abs().max() > 1e-4
    for other_value, other_gradient, other_statistics in run_in_two_processes(_loss_and_gradient, name):
        assert other_value == pytest.approx(value, rel=1e-8)
        torch.testing.assert_close(other_gradient, gradient, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(other_statistics, statistics, rtol=1e-6, atol=1e-8)
