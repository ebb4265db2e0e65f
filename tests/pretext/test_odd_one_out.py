import itertools

import pytest
import torch
from scipy.stats import chisquare

from ssl_video.pretext.odd_one_out import draw_odd_ones


def draw(number: int, *, num_frames: int = 4, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return draw_odd_ones(number, num_branches=6, num_frames=num_frames, generator=generator, **settings)


def test_only_the_odd_branch_is_out_of_order():
    orders, odd = draw(500, num_frames=6)
    assert orders.shape == (500, 6, 6) and odd.shape == (500,) and orders.dtype == odd.dtype == torch.int64
    out_of_order = (orders != torch.arange(6)).any(dim=2)
    assert torch.equal(out_of_order, torch.nn.functional.one_hot(odd, 6).bool())
    assert (orders.sort(dim=2).values == torch.arange(6)).all()


def test_every_slot_is_odd_equally_often():
    assert chisquare(torch.bincount(draw(12000)[1], minlength=6).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("refuse_reversal", [False, True])
def test_all_wrong_orders_are_equally_likely(refuse_reversal):
    orders, odd = draw(12000, refuse_reversal=refuse_reversal)
    drawn = [tuple(order) for order in orders[torch.arange(12000), odd].tolist()]
    allowed = set(itertools.permutations(range(4))) - {(0, 1, 2, 3)}
    allowed -= {(3, 2, 1, 0)} if refuse_reversal else set()
    assert set(drawn) == allowed
    assert chisquare([drawn.count(order) for order in allowed]).pvalue > 1e-3


def test_order_and_slot_are_independent():
    orders, odd = draw(12000, num_frames=3)
    first = orders[torch.arange(12000), odd][:, 0]
    table = torch.stack([torch.bincount(odd[first == frame], minlength=6) for frame in range(3)]).double()
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 29.6  # chi-square of 10 degrees at 1e-3


def test_two_frames_have_one_wrong_order():
    orders, odd = draw(20, num_frames=2)
    assert orders[torch.arange(20), odd].tolist() == [[1, 0]] * 20
    with pytest.raises(ValueError, match=r"num_frames=2 leaves no wrong order.*at least 3"):
        draw(20, num_frames=2, refuse_reversal=True)
    with pytest.raises(ValueError, match=r"num_frames=1 leaves no wrong order.*at least 2"):
        draw(20, num_frames=1)
