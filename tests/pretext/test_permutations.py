import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from ssl_video.pretext.permutations import (
    all_permutations,
    draw_orders,
    draw_permutations,
    order_classes,
    permutations_of_ranks,
    present,
)


def test_label_table_of_three():
    expected = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    assert [tuple(row) for row in all_permutations(3).tolist()] == expected


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_labels_are_lexicographic_ranks(n):
    table = [tuple(row) for row in all_permutations(n).tolist()]
    assert table == sorted(set(itertools.permutations(range(n)))) and len(table) == math.factorial(n)


def test_presented_place_i_holds_the_clip_at_original_position_permutation_i():
    clips = torch.arange(3).reshape(1, 3, 1) + torch.tensor([10, 20]).reshape(2, 1, 1)
    permutations = torch.tensor([[1, 2, 0], [2, 0, 1]])  # the two that the inverse convention would exchange
    assert present(clips, permutations).squeeze(2).tolist() == [[11, 12, 10], [22, 20, 21]]


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_round_trip(n):
    clips = torch.randn(9, n, 2, 3)
    permutations, labels = draw_permutations(9, n)
    assert permutations.shape == (9, n) and labels.shape == (9,) and labels.dtype == torch.int64
    assert torch.equal(permutations, all_permutations(n)[labels])
    assert torch.equal(present(present(clips, permutations), permutations.argsort(dim=1)), clips)


def test_reversals():
    # Position reversal exchanges 0-5, 1-3, 2-4; time reversal of the source exchanges 0-5, 1-4, 2-3.
    table = [tuple(row) for row in all_permutations(3).tolist()]
    assert [table.index(row[::-1]) for row in table] == [5, 3, 4, 1, 2, 0]
    assert [table.index(tuple(2 - i for i in row)) for row in table] == [5, 4, 3, 2, 1, 0]


def test_all_labels_are_equally_likely():
    _, labels = draw_permutations(12000, 3, generator=torch.Generator().manual_seed(0))
    assert chisquare(torch.bincount(labels, minlength=6).numpy()).pvalue > 1e-3


def test_the_draw_follows_its_generator_or_the_global_one():
    def draw(seed: int) -> list[int]:
        return draw_permutations(50, 4, generator=torch.Generator().manual_seed(seed))[1].tolist()

    before = torch.get_rng_state()
    assert draw(1) == draw(1) != draw(2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    from_global = draw_permutations(50, 4)[1].tolist()
    assert from_global == draw(1)


def test_gradient_flows_through_the_presentation():
    clips = torch.zeros(2, 3, requires_grad=True)
    weights = torch.tensor([[1.0, 2.0, 3.0]]).expand(2, 3)
    (present(clips, torch.tensor([[1, 2, 0], [0, 1, 2]])) * weights).sum().backward()
    assert clips.grad.tolist() == [[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="n=9"):
        all_permutations(9)
    with pytest.raises(ValueError, match=r"\[B, n\]"):
        present(torch.zeros(2, 4, 1), torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_permutations_of_ranks_are_the_rows_of_the_table(n):
    assert torch.equal(permutations_of_ranks(torch.arange(math.factorial(n)), n), all_permutations(n))


def test_ranks_of_long_permutations():
    last = torch.tensor([0, math.factorial(20) - 1])
    assert permutations_of_ranks(last, 20).tolist() == [list(range(20)), list(range(19, -1, -1))]
    with pytest.raises(ValueError, match="n=21"):
        permutations_of_ranks(last, 21)


# --- the classes of four frames ---------------------------------------------------------------------------------------


def label_of(merge: str) -> dict[tuple[int, ...], int]:
    return {tuple(order): label for label, members in enumerate(order_classes(merge).tolist()) for order in members}


@pytest.mark.parametrize(("merge", "classes", "members"), [("position", 12, 2), ("time", 12, 2), ("none", 24, 1)])
def test_classes_hold_every_order_once(merge, classes, members):
    assert order_classes(merge).shape == (classes, members, 4)
    assert sorted(label_of(merge)) == sorted(itertools.permutations(range(4)))


def test_position_classes_are_the_released_table():
    table = ["1234", "1324", "1342", "1243", "1423", "1432", "2134", "2143", "2314", "3124", "3142", "3214"]
    assert ["".join(str(i + 1) for i in order) for order in order_classes("position")[:, 0].tolist()] == table
    label = label_of("position")
    assert all(label[p] == label[p[::-1]] for p in label)


def test_reversing_the_video_changes_most_position_classes():
    label = label_of("position")
    reversed_labels = [label[tuple(3 - i for i in order)] for order in order_classes("position")[:, 0].tolist()]
    assert reversed_labels == [0, 1, 9, 6, 8, 11, 3, 7, 4, 2, 10, 5]


def test_time_classes_are_ranks_of_the_lesser_and_blind_to_the_reversed_video():
    label, rank = label_of("time"), label_of("none")
    for p in label:
        reverse = tuple(3 - i for i in p)
        assert label[p] == label[reverse] == rank[min(p, reverse)]


def ceiling(merge: str, shown_as) -> float:
    """Share of right answers of the best guesser who sees only ``shown_as`` of an order."""
    label = label_of(merge)
    seen = {}
    for p in label:
        seen.setdefault(shown_as(p), []).append(label[p])
    return sum(max(labels.count(one) for one in labels) for labels in seen.values()) / len(label)


@pytest.mark.parametrize(("merge", "share"), [("position", 2 / 3), ("time", 1.0), ("none", 1 / 2)])
def test_ceiling_where_the_direction_of_time_is_unknown(merge, share):
    assert ceiling(merge, lambda p: min(p, tuple(3 - i for i in p))) == pytest.approx(share)


@pytest.mark.parametrize(("merge", "share"), [("position", 1 / 3), ("time", 1 / 2), ("none", 1 / 4)])
def test_ceiling_of_palindromes(merge, share):
    assert ceiling(merge, lambda p: tuple(min(i, 3 - i) for i in p)) == pytest.approx(share)


@pytest.mark.parametrize("merge", ["position", "time", "none"])
def test_drawn_orders_are_all_equally_likely_and_carry_their_label(merge):
    orders, labels = draw_orders(12000, order_classes(merge), generator=torch.Generator().manual_seed(0))
    label = label_of(merge)
    assert labels.tolist() == [label[tuple(order)] for order in orders.tolist()]
    assert chisquare(torch.bincount(labels, minlength=len(set(label.values()))).numpy()).pvalue > 1e-3
    counts = torch.bincount((orders * torch.tensor([64, 16, 4, 1])).sum(dim=1))
    assert chisquare(counts[counts > 0].numpy()).pvalue > 1e-3 and (counts > 0).sum() == 24


def test_unknown_merge_is_refused():
    with pytest.raises(ValueError, match="'reverse'"):
        order_classes("reverse")
