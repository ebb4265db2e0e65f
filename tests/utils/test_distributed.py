import os
import time

import pytest
import torch
from torch import Tensor

from ssl_video.utils.distributed import (
    gather,
    gather_objects,
    gather_with_grad,
    rank,
    rows_per_rank,
    smallest,
    sum_with_grad,
    world_size,
)
from support import gloo
from support.gloo import run_in_two_processes


def own_rows(lengths: tuple[int, int]) -> Tensor:
    """Rows 0, 1, 2, ... over both ranks, three values each."""
    start = sum(lengths[: rank()])
    return (start + torch.arange(lengths[rank()], dtype=torch.float32)).unsqueeze(1).repeat(1, 3)


def identify() -> tuple[int, int]:
    return rank(), world_size()


def gather_rows(lengths: tuple[int, int]) -> tuple[Tensor, bool, list[int]]:
    rows = own_rows(lengths).requires_grad_()
    gathered = gather(rows)
    return gathered, gathered.requires_grad, rows_per_rank(rows)


def gather_bytes() -> Tensor:
    return gather(torch.full((2, 2), 250 + rank(), dtype=torch.uint8))


def gather_names() -> list[dict[str, object]]:
    return gather_objects({"rank": rank(), "rows": list(range(1 + 3 * rank())), "none": None})


def gradient_of_gather(lengths: tuple[int, int]) -> tuple[Tensor, Tensor]:
    rows = own_rows(lengths).requires_grad_()
    gathered = gather_with_grad(rows)
    weights = torch.arange(1.0, len(gathered) + 1).unsqueeze(1) * (10.0 if rank() else 1.0)
    (weights * gathered).sum().backward()
    assert rows.grad is not None
    return gathered.detach(), rows.grad


def gradient_of_sum() -> tuple[Tensor, Tensor]:
    values = torch.tensor([1.0, 2.0]).add(rank()).requires_grad_()
    total = sum_with_grad(values)
    ((rank() + 1) * total.square()).sum().backward()
    assert values.grad is not None
    return total.detach(), values.grad


def all_pairs_loss(network: torch.nn.Linear, own: Tensor) -> Tensor:
    """Mean over the own rows of a loss in which every row meets all rows."""
    embedding = torch.tanh(network(own))
    return torch.logsumexp(embedding @ gather_with_grad(embedding).T, dim=1).mean()


def data_parallel_gradient(rows: Tensor) -> Tensor:
    torch.manual_seed(3)
    network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 3))
    loss = all_pairs_loss(network, rows.chunk(2)[rank()])
    loss.backward()
    return network.module.weight.grad


def fail_on_one_rank() -> Tensor:
    if rank() == 1:
        raise ValueError("rank 1 gives up")
    return gather(torch.ones(1))


def die() -> None:
    os._exit(7)


def sleep_for_ever() -> None:
    time.sleep(3600)


def test_one_process_is_identity_and_cuts_the_gradient_only_in_gather():
    rows = torch.randn(3, 2, requires_grad=True)
    assert (rank(), world_size(), rows_per_rank(rows)) == (0, 1, [3])
    assert torch.equal(gather(rows), rows) and not gather(rows).requires_grad
    assert gather_with_grad(rows) is rows and sum_with_grad(rows) is rows


def test_ranks_are_told_apart():
    assert run_in_two_processes(identify) == [(0, 2), (1, 2)]


@pytest.mark.parametrize("lengths", [(2, 2), (3, 1), (0, 2)])
def test_gather_concatenates_in_rank_order_without_gradient(lengths):
    expected = torch.arange(float(sum(lengths))).unsqueeze(1).repeat(1, 3)
    for gathered, requires_grad, counts in run_in_two_processes(gather_rows, lengths):
        assert torch.equal(gathered, expected)
        assert not requires_grad
        assert counts == list(lengths)


def test_gather_takes_uint8_clips():
    assert run_in_two_processes(gather_bytes)[0].tolist() == [[250, 250], [250, 250], [251, 251], [251, 251]]


@pytest.mark.parametrize("lengths", [(2, 2), (1, 3)])
def test_gather_with_grad_sums_the_ranks_gradients_into_the_own_rows(lengths):
    results = run_in_two_processes(gradient_of_gather, lengths)
    for gathered, _ in results:
        assert torch.equal(gathered, torch.arange(4.0).unsqueeze(1).repeat(1, 3))
    gradient = torch.cat([gradient for _, gradient in results])
    assert torch.equal(gradient, 11.0 * torch.arange(1.0, 5.0).unsqueeze(1).repeat(1, 3))


def test_sum_with_grad_in_value_and_gradient():
    # values (1, 2) and (2, 3): total (3, 5); loss = total² + 2·total², so each value's gradient is 6·total.
    for total, gradient in run_in_two_processes(gradient_of_sum):
        assert total.tolist() == [3.0, 5.0]
        assert gradient.tolist() == [18.0, 30.0]


def test_data_parallel_training_has_the_gradient_of_one_process():
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    network = torch.nn.Linear(4, 3)
    all_pairs_loss(network, rows).backward()
    for gradient in run_in_two_processes(data_parallel_gradient, rows):
        torch.testing.assert_close(gradient, network.weight.grad)


def test_a_scalar_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        gather(torch.tensor(1.0))


@pytest.mark.slow
def test_the_pool_reports_a_fault_at_once_and_serves_again():
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="rank 1 gives up"):
        run_in_two_processes(fail_on_one_rank)
    assert time.monotonic() - started < gloo.TIMEOUT_SECONDS / 2
    assert run_in_two_processes(identify) == [(0, 2), (1, 2)]


@pytest.mark.slow
def test_the_pool_survives_death_and_silence(monkeypatch):
    with pytest.raises(RuntimeError, match="without an answer"):
        run_in_two_processes(die)
    assert run_in_two_processes(identify) == [(0, 2), (1, 2)]
    monkeypatch.setattr(gloo, "TIMEOUT_SECONDS", 1.0)
    with pytest.raises(RuntimeError, match="no answer for 1 s"):
        run_in_two_processes(sleep_for_ever)


def test_objects_of_all_ranks_are_everywhere_in_rank_order() -> None:
    assert gather_objects("mine") == ["mine"]
    expected = [{"rank": 0, "rows": [0], "none": None}, {"rank": 1, "rows": [0, 1, 2, 3], "none": None}]
    assert run_in_two_processes(gather_names) == [expected, expected]


def _smallest() -> Tensor:
    return smallest(torch.tensor([1.0 - rank(), 5.0 + rank()]))


def test_smallest_is_that_of_all_ranks() -> None:
    assert [result.tolist() for result in run_in_two_processes(_smallest)] == [[0.0, 5.0]] * 2
    assert smallest(torch.tensor([3.0])).tolist() == [3.0]
