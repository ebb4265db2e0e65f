"""Labelled and unlabelled videos in one order: a pure function of the position, each list in its own rhythm."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from ssl_video.data.semi_order import SemiKey, SemiOrder

LABELED, UNLABELED = np.arange(100, 111), np.arange(200, 270)  # 11 and 70


def order(**changes: Any) -> SemiOrder:
    arguments: dict[str, Any] = {"batch_size": 2, "unlabeled_batch_size": 6, "seed": 7}
    return SemiOrder(LABELED, UNLABELED, **(arguments | changes))


def rows(keys: list[SemiKey], *, labeled: bool) -> list[int]:
    return [key.row for key in keys if key.labeled == labeled]


def test_a_batch_holds_both_parts_and_no_video_twice() -> None:
    for keys in order(num_batches=40, epoch_by="unlabeled"):
        assert [key.labeled for key in keys] == [True] * 2 + [False] * 6
        assert len({key.row for key in keys}) == 8
        assert set(rows(keys, labeled=True)) <= set(LABELED.tolist())
        assert set(rows(keys, labeled=False)) <= set(UNLABELED.tolist())


@pytest.mark.parametrize(("epoch_by", "batches"), [("shorter", 5), ("labeled", 5), ("unlabeled", 11), (3, 3), (20, 20)])
def test_length_of_an_epoch(epoch_by: Any, batches: int) -> None:
    """11 labelled videos are 5 whole batches of 2, 70 unlabelled ones 11 of 6."""
    made = order(epoch_by=epoch_by)
    assert made.batches_per_epoch == len(made) == batches
    assert {key.epoch for keys in order(epoch_by=epoch_by, num_batches=batches) for key in keys} == {0}
    last = list(order(epoch_by=epoch_by, num_batches=batches + 1))[-1]
    assert {key.epoch for key in last} == {1}


def test_shorter_is_the_unlabelled_list_where_labels_abound() -> None:
    made = SemiOrder(LABELED, UNLABELED[:12], batch_size=2, unlabeled_batch_size=6, epoch_by="shorter")
    assert made.batches_per_epoch == 2


def test_the_list_that_is_shorter_comes_round_evenly_and_in_another_order() -> None:
    batches = list(order(epoch_by="unlabeled"))
    first, second = (
        [row for keys in part for row in rows(keys, labeled=True)] for part in (batches[:5], batches[5:10])
    )
    assert len(set(first)) == len(set(second)) == 10
    assert first != second
    counts = Counter(row for keys in batches for row in rows(keys, labeled=False))
    assert set(counts.values()) == {1}


def test_the_list_that_is_longer_is_seen_in_another_part_each_epoch() -> None:
    batches = list(order(epoch_by="shorter", num_batches=10))
    first, second = ({row for keys in part for row in rows(keys, labeled=False)} for part in (batches[:5], batches[5:]))
    assert len(first) == len(second) == 30
    assert first != second


@pytest.mark.parametrize("epoch_by", ["shorter", "unlabeled", 7])
@pytest.mark.parametrize("first_batch", range(13))
def test_going_on_at_any_batch_gives_the_same_batches(first_batch: int, epoch_by: Any) -> None:
    resumed = order(num_batches=12, first_batch=first_batch, epoch_by=epoch_by)
    assert list(resumed) == list(order(num_batches=12, epoch_by=epoch_by))[first_batch:]
    assert len(resumed) == 12


def test_a_control_that_is_off_by_one_batch_differs() -> None:
    assert next(iter(order(num_batches=12, first_batch=3))) != list(order(num_batches=12))[2]


def test_every_sample_of_an_epoch_has_a_position_of_its_own() -> None:
    positions = [key.position for keys in order(epoch_by="unlabeled") for key in keys]
    assert sorted(positions) == list(range(11 * 8))


def test_ranks_share_each_global_batch_of_one_process() -> None:
    one = list(order(batch_size=4, unlabeled_batch_size=8, num_batches=9))
    two = [
        list(order(batch_size=2, unlabeled_batch_size=4, num_batches=9, rank=rank, world_size=2)) for rank in range(2)
    ]
    for whole, *parts in zip(one, *two, strict=True):
        assert [key for part in parts for key in part if key.labeled] == [key for key in whole if key.labeled]
        assert [key for part in parts for key in part if not key.labeled] == [key for key in whole if not key.labeled]


def test_seeds_differ_and_the_two_lists_are_shuffled_apart() -> None:
    assert list(order()) == list(order())
    assert list(order()) != list(order(seed=8))
    same = SemiOrder(np.arange(20), np.arange(20), batch_size=4, unlabeled_batch_size=4)
    assert all(rows(keys, labeled=True) != rows(keys, labeled=False) for keys in same)


def test_no_labelled_part() -> None:
    made = SemiOrder([], UNLABELED, batch_size=0, unlabeled_batch_size=6, epoch_by="labeled")
    assert made.batches_per_epoch == 11
    assert all(len(keys) == 6 and not any(key.labeled for key in keys) for keys in made)


def test_a_list_that_does_not_fill_a_batch_gives_no_epoch() -> None:
    assert SemiOrder(LABELED, UNLABELED[:5], batch_size=2, unlabeled_batch_size=6, epoch_by=4).batches_per_epoch == 0


def test_position_beyond_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"first_batch=6 is outside the run's 0 to 5 batches"):
        order(first_batch=6)
