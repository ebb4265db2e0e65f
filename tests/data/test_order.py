"""The order of batches is arithmetic: a resume at any batch sees what the uninterrupted run saw."""

import numpy as np
import pytest

from ssl_video.data.order import BatchOrder, SampleKey

ROWS = np.arange(100, 123)


def order(**changes: int) -> BatchOrder:
    return BatchOrder(ROWS, batch_size=4, seed=7, **changes)


def epochs(batches: BatchOrder, number: int) -> list[list[list[SampleKey]]]:
    return [list(batches) for _ in range(number)]


def test_each_epoch_visits_every_row_at_most_once_and_drops_the_rest() -> None:
    first, second = epochs(order(), 2)
    for batches in (first, second):
        rows = [key.row for batch in batches for key in batch]
        assert len(rows) == len(set(rows)) == 20  # 23 videos, five whole batches of 4
        assert set(rows) <= set(ROWS.tolist())
    assert [key.row for batch in first for key in batch] != [key.row for batch in second for key in batch]
    assert {key.epoch for batch in first for key in batch} == {0}
    assert {key.epoch for batch in second for key in batch} == {1}


def test_evaluation_keeps_the_last_batch_and_the_given_order() -> None:
    batches = list(BatchOrder(ROWS, batch_size=4, shuffle=False, drop_last=False))
    assert [key.row for batch in batches for key in batch] == ROWS.tolist()
    assert len(batches) == 6


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("batch", range(6))
def test_going_on_at_any_batch_gives_the_same_batches(epoch: int, batch: int) -> None:
    whole = epochs(order(), 4)
    resumed = order()
    resumed.start_at(epoch, batch)
    expected = [b for e in whole[epoch:] for b in e][batch:]
    # A whole epoch's length is told throughout: the trainer counts batches from the epoch's start.
    assert len(resumed) == 5
    got = [b for e in epochs(resumed, 4 - epoch - (batch == 5)) for b in e]
    assert got == expected


def test_an_iterator_that_is_never_used_moves_nothing() -> None:
    """A DataLoader with workers makes two and uses one."""
    batches = order()
    iter(batches)
    assert [batch[0].epoch for batch in batches] == [0] * 5


def test_a_control_that_is_off_by_one_batch_differs() -> None:
    resumed = order()
    resumed.start_at(0, 3)
    assert next(iter(resumed)) != list(order())[2]


def test_position_beyond_the_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch=6 is outside the epoch's 0 to 5 batches"):
        order().start_at(0, 6)


def test_ranks_share_each_global_batch_of_one_process() -> None:
    one = list(BatchOrder(ROWS, batch_size=8, seed=7))
    two = [list(BatchOrder(ROWS, batch_size=4, seed=7, rank=rank, world_size=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*two, strict=True)] == one


def test_order_depends_on_the_seed() -> None:
    assert list(order()) == list(order())
    assert list(order()) != list(BatchOrder(ROWS, batch_size=4, seed=8))
