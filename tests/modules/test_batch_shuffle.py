from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_video.modules.batch_shuffle import shuffle
from ssl_video.utils.distributed import rank
from support.gloo import run_in_two_processes


def numbered(count: int, first: int = 0) -> Tensor:
    return torch.arange(first, first + count, dtype=torch.float32).reshape(count, 1)


def shuffle_and_back(rows: tuple[int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    own = numbered(rows[rank()], first=100 * rank())
    shuffled, unshuffle = shuffle(own, seed=seed)
    return own, shuffled, unshuffle(shuffled)


def norm_mean(shuffled: bool) -> Tensor:
    """Batch mean that a batch norm sees on a rank whose own rows are all equal to its number."""
    norm = nn.BatchNorm1d(1, momentum=1.0)
    own = torch.full((16, 1), float(rank()))
    norm(shuffle(own, seed=0)[0] if shuffled else own)
    return norm.running_mean


def test_one_process_permutes_and_comes_back():
    own = numbered(20).reshape(20, 1, 1).requires_grad_()
    shuffled, unshuffle = shuffle(own, seed=1)
    assert not torch.equal(shuffled, own)
    assert torch.equal(shuffled.sort(dim=0).values, own)
    assert torch.equal(unshuffle(shuffled), own)
    assert not shuffled.requires_grad


def test_the_seed_alone_decides_the_order():
    own = numbered(20)
    first = shuffle(own, seed=1)[0]
    torch.rand(3)
    assert torch.equal(shuffle(own, seed=1)[0], first)
    assert not torch.equal(shuffle(own, seed=2)[0], first)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    shuffle(numbered(4), seed=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rows", [(8, 8), (5, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_two_ranks_exchange_rows_and_come_back(rows, seed):
    results = run_in_two_processes(shuffle_and_back, rows, seed)
    for (own, shuffled, back), count in zip(results, rows, strict=True):
        assert len(shuffled) == count
        assert torch.equal(back, own)
    # Each row is somewhere exactly once: the ranks used the same permutation.
    everything = torch.cat([shuffled for _, shuffled, _ in results])
    assert torch.equal(everything.sort(dim=0).values, torch.cat([own for own, _, _ in results]))
    assert any(value >= 100 for value in results[0][1])  # rank 0 got rows of rank 1


def test_batch_norm_sees_other_companions():
    assert [float(mean) for mean in run_in_two_processes(norm_mean, False)] == [0.0, 1.0]
    means = [float(mean) for mean in run_in_two_processes(norm_mean, True)]
    assert all(0.0 < mean < 1.0 for mean in means) and sum(means) == pytest.approx(1.0)


@pytest.mark.parametrize("rows", [(8, 8), (5, 3)])
def test_the_order_over_all_ranks_is_that_of_one_permutation(rows):
    results = run_in_two_processes(shuffle_and_back, rows, 3)
    all_rows = torch.cat([own for own, _, _ in results])
    permutation = torch.randperm(sum(rows), generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([shuffled for _, shuffled, _ in results]), all_rows[permutation])


def most_rows_received(rows: int) -> int:
    """Rows that come to this rank in one shuffle."""
    received = []
    original = dist.all_to_all_single

    def counted(output: Tensor, *arguments: Any) -> Any:
        received.append(len(output))
        return original(output, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_to_all_single", counted)
        patch.setattr(dist, "all_gather", lambda parts, own: [part.fill_(rows) for part in parts])
        shuffle(numbered(rows, first=100 * rank()), seed=0)
    return max(received)


def test_a_rank_receives_as_many_rows_as_it_has():
    assert run_in_two_processes(most_rows_received, 6) == [6, 6]
