import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from ssl_video.pretext.permutations import all_permutations, draw_permutations, present


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
