"""Which queries are shown, and what is a hit."""

import numpy as np
import pytest

from ssl_video.report.contents import Measured, Predictions
from ssl_video.report.retrieval_sheet import SHOWN_NEIGHBOURS, make_sheet
from support.reports import made_up_predictions


def measured(predictions: Predictions | None) -> Measured:
    return Measured("run", 0, {"results": {}}, predictions, None, 0)


def by_hits(hits: int, misses: int) -> Predictions:
    """So many videos whose nearest neighbour is of their class, then so many where only the second is."""
    number = hits + misses
    return Predictions(
        paths=[f"{place}.mp4" for place in range(number)],
        labels=["walk"] * number,
        neighbours={"knn": [["near.mp4", "far.mp4"]] * number},
        neighbour_labels={"knn": [["walk", "run"]] * hits + [["run", "walk"]] * misses},
    )


def test_half_are_hits_and_half_misses_each_in_order() -> None:
    sheet = make_sheet(measured(by_hits(50, 70)), queries=24)
    assert sheet is not None
    assert [query.video.hit for query in sheet.queries] == [True] * 12 + [False] * 12
    assert (sheet.hits, sheet.total) == (50, 120)
    places = [int(query.video.path.removesuffix(".mp4")) for query in sheet.queries]
    assert places[:12] == sorted(places[:12]) and max(places[:12]) < 50
    assert places[12:] == sorted(places[12:]) and min(places[12:]) >= 50
    assert [near.hit for near in sheet.queries[0].neighbours] == [True, False]
    assert [near.hit for near in sheet.queries[-1].neighbours] == [False, True]


@pytest.mark.parametrize(
    ("hits", "misses", "shown"),
    [(3, 70, (3, 21)), (70, 2, (22, 2)), (0, 70, (0, 24)), (70, 0, (24, 0)), (3, 4, (3, 4)), (0, 0, (0, 0))],
)
def test_where_one_kind_is_rare_the_other_fills_the_sheet(hits: int, misses: int, shown: tuple[int, int]) -> None:
    sheet = make_sheet(measured(by_hits(hits, misses)), queries=24)
    assert sheet is not None
    kinds = [query.video.hit for query in sheet.queries]
    assert (kinds.count(True), kinds.count(False)) == shown


def test_the_same_seed_draws_the_same_queries_and_another_one_others() -> None:
    found = measured(made_up_predictions(videos=300, classes=4, train=50))
    drawn = [
        [query.video.path for query in sheet.queries]
        for seed in (0, 0, 1)
        if (sheet := make_sheet(found, queries=24, seed=seed))
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(query.neighbours) == SHOWN_NEIGHBOURS for query in make_sheet(found, queries=24).queries)  # type: ignore


def test_without_labels_nothing_is_a_hit_or_a_miss() -> None:
    sheet = make_sheet(measured(made_up_predictions(videos=50, classes=3, train=9, labelled=False)), queries=24)
    assert sheet is not None
    assert len(sheet.queries) == 24 and sheet.total == 0
    assert {near.hit for query in sheet.queries for near in (query.video, *query.neighbours)} == {None}


def test_without_predictions_or_neighbours_there_is_no_sheet() -> None:
    assert make_sheet(measured(None), queries=24) is None
    assert make_sheet(measured(Predictions(["a.mp4"], ["walk"])), queries=24) is None


def test_the_measured_share_is_that_of_all_videos() -> None:
    found = made_up_predictions(videos=200, classes=5, train=40)
    sheet = make_sheet(measured(found), queries=24)
    first = np.array([labels[0] for labels in found.neighbour_labels["retrieval"]])
    assert sheet is not None and sheet.hits == int((first == np.array(found.labels)).sum())
