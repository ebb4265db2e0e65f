"""The order of batches is arithmetic: a resume at any batch sees what the uninterrupted run saw."""

import numpy as np
import pytest

from ssl_video.data.order import BatchOrder

ROWS = np.arange(100, 123)


def order(**changes: int) -> BatchOrder:
    return BatchOrder(ROWS, batch_size=4, seed=7, **changes)


def test_each_epoch_visits_every_row_at_most_once_and_drops_the_rest() -> None:
    batches = list(order(num_batches=10))
    first, second = batches[:5], batches[5:]
    for number, epoch in enumerate((first, second)):
        rows = [key.row for batch in epoch for key in batch]
        assert len(rows) == len(set(rows)) == 20  # 23 videos, five whole batches of 4
        assert set(rows) <= set(ROWS.tolist())
        assert {key.epoch for batch in epoch for key in batch} == {number}
        assert [key.position for batch in epoch for key in batch] == list(range(20))
    assert [key.row for batch in first for key in batch] != [key.row for batch in second for key in batch]


def test_one_epoch_by_default() -> None:
    assert list(order()) == list(order(num_batches=10))[:5]


def test_evaluation_keeps_the_last_batch_and_the_given_order() -> None:
    batches = list(BatchOrder(ROWS, batch_size=4, shuffle=False, drop_last=False))
    assert [key.row for batch in batches for key in batch] == ROWS.tolist()
    assert len(batches) == 6


@pytest.mark.parametrize("first_batch", range(13))
def test_going_on_at_any_batch_gives_the_same_batches(first_batch: int) -> None:
    resumed = order(num_batches=12, first_batch=first_batch)
    assert list(resumed) == list(order(num_batches=12))[first_batch:]
    assert len(resumed) == 12  # the trainer counts batches from the run's start


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    assert list(order(num_batches=20))[:7] == list(order(num_batches=7))


def test_a_control_that_is_off_by_one_batch_differs() -> None:
    assert next(iter(order(num_batches=12, first_batch=3))) != list(order())[2]


def test_iterators_do_not_disturb_each_other() -> None:
    """A DataLoader with workers makes two and uses one."""
    batches = order()
    unused = iter(batches)
    next(unused)
    assert list(batches) == list(order())


def test_position_beyond_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"first_batch=6 is outside the run's 0 to 5 batches"):
        order(first_batch=6)


def test_ranks_share_each_global_batch_of_one_process() -> None:
    one = list(BatchOrder(ROWS, batch_size=8, num_batches=5, seed=7))
    two = [list(BatchOrder(ROWS, batch_size=4, num_batches=5, seed=7, rank=r, world_size=2)) for r in range(2)]
    assert [a + b for a, b in zip(*two, strict=True)] == one


def test_order_depends_on_the_seed() -> None:
    assert list(order()) == list(order())
    assert list(order()) != list(BatchOrder(ROWS, batch_size=4, seed=8))
