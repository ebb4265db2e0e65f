"""No process of a run has fewer batches than another: it would leave the others waiting for ever."""

import numpy as np
import pytest

from ssl_video.data.order import BatchOrder
from ssl_video.data.repeats import RepeatedOrder
from ssl_video.data.semi_order import SemiOrder


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("videos", [21, 22, 27, 40, 41])
@pytest.mark.parametrize(("num_batches", "first_batch"), [(None, 0), (23, 0), (23, 9)])
def test_every_rank_has_as_many_whole_batches(
    world_size: int, videos: int, num_batches: int | None, first_batch: int
) -> None:
    orders = [
        BatchOrder(
            np.arange(videos),
            batch_size=3,
            num_batches=num_batches,
            first_batch=first_batch,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    batches = [list(order) for order in orders]
    assert len({len(one) for one in batches}) == 1
    assert {len(keys) for one in batches for keys in one} == {3}
    for together in zip(*batches, strict=True):  # a video stands in one place of a global batch
        rows = [key.row for keys in together for key in keys]
        assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("epoch_by", ["shorter", "labeled", "unlabeled", 5])
def test_every_rank_has_as_many_labelled_and_unlabelled_videos(world_size: int, epoch_by: object) -> None:
    batches = [
        list(
            SemiOrder(
                np.arange(13),
                np.arange(13, 60),
                batch_size=2,
                unlabeled_batch_size=5,
                epoch_by=epoch_by,  # type: ignore[arg-type]
                num_batches=17,
                rank=rank,
                world_size=world_size,
            )
        )
        for rank in range(world_size)
    ]
    assert [len(one) for one in batches] == [17] * world_size
    counts = {sum(key.labeled for key in keys) * 100 + len(keys) for one in batches for keys in one}
    assert counts == {2 * 100 + 7}


@pytest.mark.parametrize("first_batch", [0, 5])
def test_every_rank_has_as_many_repeats(first_batch: int) -> None:
    def count(rank: int) -> int:
        openings = BatchOrder(
            np.arange(20), batch_size=3, num_batches=6, first_batch=first_batch // 4, rank=rank, world_size=3
        )
        order = RepeatedOrder(openings, clips_per_open=4, num_batches=23, first_batch=first_batch)
        return sum(len(keys[0].repeats) for keys in order)

    assert {count(rank) for rank in range(3)} == {23 - first_batch}


def test_in_evaluation_a_rank_may_have_no_rows_at_all() -> None:
    """Rows are divided as they go; what every rank does is to tell the others what it found."""
    parts = [np.array_split(np.arange(3), 5)[rank] for rank in range(5)]
    assert [len(part) for part in parts] == [1, 1, 1, 0, 0]
    assert len(list(BatchOrder(parts[4], batch_size=3, shuffle=False, drop_last=False))) == 0
