import pytest
import torch
from torch import Tensor

from ssl_video.modules.feature_queue import FeatureQueue
from ssl_video.utils.distributed import gather, rank
from support.gloo import run_in_two_processes


def owned(features):
    """Features with an owner each, told from the feature, so that both must stay together."""
    return features, features[:, 0].detach().long()


def numbered(first: int, count: int, dim: int = 2) -> Tensor:
    """Rows whose values are their number."""
    return torch.arange(first, first + count, dtype=torch.float32).unsqueeze(1).repeat(1, dim)


def content(queue: FeatureQueue) -> list[int]:
    return [int(value) for value in queue.features[:, 0]]


def push_five_gathered_steps(rows_per_step: tuple[int, int]) -> dict[str, Tensor]:
    queue = FeatureQueue(7, 2)
    for step in range(5):
        queue.push(*owned(gather(numbered(100 * step + 10 * rank(), rows_per_step[rank()]))))
    return queue.state_dict()


def test_starts_with_noise_of_unit_norm():
    queue = FeatureQueue(1000, 128)
    assert queue.features.abs().max() <= (3 / 128) ** 0.5
    assert queue.features.norm(dim=1).mean() == pytest.approx(1.0, abs=0.01)
    assert queue.features.std() == pytest.approx(128**-0.5, rel=0.01)
    assert not queue.is_full and not list(queue.parameters())


def test_wraps_with_a_remainder_and_overwrites_the_oldest():
    queue = FeatureQueue(5, 2)
    queue.push(*owned(numbered(1, 3)))
    assert content(queue)[:3] == [1, 2, 3] and not queue.is_full
    queue.push(*owned(numbered(4, 3)))
    assert content(queue) == [6, 2, 3, 4, 5] and queue.is_full
    assert (int(queue.pointer), int(queue.pushed)) == (1, 6)
    queue.push(*owned(numbered(7, 5)))
    assert content(queue) == [11, 7, 8, 9, 10]


@pytest.mark.parametrize("count", [5, 6, 12, 23])
def test_a_push_longer_than_the_queue_equals_pushing_row_by_row(count):
    at_once, one_by_one = FeatureQueue(5, 2), FeatureQueue(5, 2)
    for queue in (at_once, one_by_one):
        queue.push(*owned(numbered(900, 2)))
    at_once.push(*owned(numbered(1, count)))
    for row in range(1, count + 1):
        one_by_one.push(*owned(numbered(row, 1)))
    assert sorted(content(at_once)) == list(range(count - 4, count + 1))
    for name, value in at_once.state_dict().items():
        assert torch.equal(value, one_by_one.state_dict()[name]), name


def test_an_empty_push_changes_nothing():
    queue = FeatureQueue(5, 2)
    before = queue.features.clone()
    queue.push(*owned(torch.empty(0, 2)))
    assert torch.equal(queue.features, before) and int(queue.pointer) == 0


def test_backward_may_come_after_the_push():
    queue = FeatureQueue(4, 2)
    query = torch.randn(3, 2, requires_grad=True)
    seen = queue.features.clone()
    loss = (query @ queue.features.T).sum()
    queue.push(*owned(numbered(1, 3)))
    loss.backward()
    torch.testing.assert_close(query.grad, seen.sum(dim=0).expand(3, 2))


def test_no_graph_is_kept_and_half_precision_is_stored_in_full():
    queue = FeatureQueue(4, 2)
    queue.push(*owned(torch.ones(2, 2, dtype=torch.float16, requires_grad=True)))
    assert not queue.features.requires_grad and queue.features.dtype == torch.float32


def test_state_round_trips():
    queue, other = FeatureQueue(5, 2), FeatureQueue(5, 2)
    queue.push(*owned(numbered(1, 3)))
    other.load_state_dict(queue.state_dict())
    for one in (queue, other):
        one.push(*owned(numbered(10, 4)))
    assert torch.equal(queue.features, other.features) and torch.equal(queue.pointer, other.pointer)


@pytest.mark.parametrize("rows_per_step", [(2, 2), (3, 1), (5, 5)])
def test_ranks_hold_the_same_after_five_gathered_steps(rows_per_step):
    expected = FeatureQueue(7, 2)
    for step in range(5):
        for of_rank, rows in enumerate(rows_per_step):
            expected.push(*owned(numbered(100 * step + 10 * of_rank, rows)))
    for state in run_in_two_processes(push_five_gathered_steps, rows_per_step):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, state[name]), name


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="length=0"):
        FeatureQueue(0, 2)
    with pytest.raises(ValueError, match=r"takes \[n, 2\]"):
        FeatureQueue(4, 2).push(*owned(torch.zeros(3, 5)))


def test_owners_travel_with_their_features():
    queue = FeatureQueue(4, 2)
    assert queue.owners.tolist() == [-1] * 4
    queue.push(numbered(1, 3), torch.tensor([7, 8, 9]))
    queue.push(numbered(4, 2), torch.tensor([5, 6]))
    assert queue.owners.tolist() == [6, 8, 9, 5]
    with pytest.raises(ValueError, match=r"owners \[2\]"):
        queue.push(numbered(1, 3), torch.tensor([1, 2]))


def test_what_a_step_saw_is_forgotten_when_a_state_is_loaded():
    queue, other = FeatureQueue(4, 2), FeatureQueue(4, 2)
    queue.at_step(3)
    queue.push(*owned(numbered(1, 2)))
    other.push(*owned(numbered(5, 4)))
    queue.load_state_dict(other.state_dict())
    features, owners = queue.at_step(3)
    assert torch.equal(features, other.features)
    assert owners.tolist() == [5, 6, 7, 8]
