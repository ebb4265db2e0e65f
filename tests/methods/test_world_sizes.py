"""Whatever the number of processes, and whatever share of the rows each has, a step is that of one process with all."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.distributed import rank, world_size
from support.gloo import run_in_processes
from support.methods import build_method, random_batch

# Batch norm in train mode; MoCo's is of each process's own rows by definition, so it is compared without.
METHODS = {
    "cvrl": True,
    "simclr": True,
    "byol": True,
    "swav": True,
    "moco_v3": True,
    "moco": False,
}
ROWS = {1: [8], 2: [5, 3], 3: [4, 2, 2]}  # of each process
QUICK = ("cvrl", 2)
CASES = [
    pytest.param(name, number, marks=[] if (name, number) == QUICK else pytest.mark.slow)
    for name in METHODS
    for number in ROWS
]
TENSORS = ("clips", "indices", "labels", "rows", "videos", "positions")


class Step(torch.nn.Module):
    """A method's losses as a forward pass, which is what DDP wraps."""

    def __init__(self, method: SSLMethod[Any]) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: ClipBatch) -> Tensor:
        return torch.stack(list(self.method.losses(batch).values())).sum()


def one_step(name: str, rows: list[int]) -> dict[str, Any]:
    """Loss, gradient, statistics and queue of this process's part of a global batch, in double precision."""
    method, config = build_method(name)
    method.double().train(METHODS[name])
    start = sum(rows[: rank()])
    own = slice(start, start + rows[rank()])
    batch = random_batch(config, batch_size=sum(rows))
    batch = replace(batch, videos=torch.tensor([0, 1, 2, 3, 4, 0, 6, 7]))  # two segments of one, apart where it can be
    batch = replace(batch, **{name: getattr(batch, name)[own] for name in TENSORS})
    batch = replace(batch, clips=batch.clips.double())
    step: torch.nn.Module = Step(method)
    if torch.distributed.is_initialized():
        step = DistributedDataParallel(step, broadcast_buffers=False, gradient_as_bucket_view=True)
    loss = step(batch)
    # A process's loss is the mean over its rows, and DDP takes the mean over processes: with unequal rows, each counts
    # by them. In training all have the same number, and the factor is 1.
    (loss * rows[rank()] * world_size() / sum(rows)).backward()
    gradients = [parameter.grad for parameter in method.parameters() if parameter.grad is not None]
    return {
        "loss": float(loss.detach()),
        "gradient": torch.cat([gradient.flatten() for gradient in gradients]),
        "statistics": torch.cat([buffer.flatten() for key, buffer in method.named_buffers() if "running" in key]),
        "queue": method.queue.features if name == "moco" else torch.zeros(1, 1),
    }


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_step_is_that_of_one_process(name: str, number: int) -> None:
    rows = ROWS[number]
    expected = one_step(name, [sum(rows)])
    results = run_in_processes(number, one_step, name, rows)
    assert expected["gradient"].abs().max() > 1e-4
    mean = sum(result["loss"] * own for result, own in zip(results, rows, strict=True)) / sum(rows)
    assert mean == pytest.approx(expected["loss"], rel=1e-8)
    # One process enqueues view by view, several process by process: the same keys in another order.
    assert all(torch.equal(result["queue"], results[0]["queue"]) for result in results)
    for one in (expected, *results):
        one["queue"] = one["queue"][one["queue"][:, 0].argsort()]
    for result in results:
        for key in ("gradient", "statistics", "queue"):
            torch.testing.assert_close(result[key], expected[key], rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name != "moco"])
def test_a_control_that_forgets_the_other_processes_differs(name: str) -> None:
    """Two processes that each take their rows for all: the table above would notice."""
    rows = ROWS[2]
    expected = one_step(name, [sum(rows)])
    apart = [_alone(name, slice(0, 5)), _alone(name, slice(5, 8))]
    mean = sum(loss * own for loss, own in zip(apart, rows, strict=True)) / sum(rows)
    assert abs(mean - expected["loss"]) > 1e-4


def _alone(name: str, own: slice) -> float:
    method, config = build_method(name)
    method.double()
    batch = random_batch(config, batch_size=8)
    batch = replace(batch, **{key: getattr(batch, key)[own] for key in TENSORS})
    losses = method.losses(replace(batch, clips=batch.clips.double()))
    return float(torch.stack(list(losses.values())).sum().detach())
