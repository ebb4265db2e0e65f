import math

import pytest
import torch

from ssl_video.pretext.tuples import draw_tuples

DRAWN = 12000


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    return draw_tuples(DRAWN, generator=torch.Generator().manual_seed(0))


def share_is(share: float, expected: float, number: int) -> bool:
    return abs(share - expected) <= 3 * math.sqrt(expected * (1 - expected) / number)


def test_only_the_six_tuples_occur_with_their_label(drawn):
    found = {(tuple(places), label) for places, label in zip(drawn[0].tolist(), drawn[1].tolist(), strict=True)}
    forwards = {((1, 2, 3), 1), ((1, 0, 3), 0), ((1, 4, 3), 0)}
    assert found == forwards | {(places[::-1], label) for places, label in forwards}


def test_right_and_wrong_share_their_ends_and_repeat_no_frame(drawn):
    places = drawn[0]
    assert {tuple(sorted(ends)) for ends in places[:, [0, 2]].tolist()} == {(1, 3)}
    assert all(len(set(tuple_)) == 3 for tuple_ in places.tolist())


def test_shares(drawn):
    places, labels = drawn
    wrong = labels == 0
    assert share_is(wrong.float().mean().item(), 0.75, DRAWN)
    for kind in (wrong, ~wrong):
        assert share_is((places[kind][:, 0] == 3).float().mean().item(), 0.5, int(kind.sum()))
    assert share_is((places[wrong][:, 1] == 0).float().mean().item(), 0.5, int(wrong.sum()))


def test_the_share_of_wrong_tuples_varies_from_batch_to_batch():
    shares = {int(draw_tuples(32, generator=torch.Generator().manual_seed(seed))[1].sum()) for seed in range(20)}
    assert len(shares) > 3


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_kind_alone(share):
    labels = draw_tuples(100, negative_share=share)[1]
    assert (labels == int(share == 0)).all()


def test_the_draw_follows_its_generator_or_the_global_one():
    def draw(seed: int) -> list[list[int]]:
        return draw_tuples(50, generator=torch.Generator().manual_seed(seed))[0].tolist()

    assert draw(1) == draw(1) != draw(2)
    torch.manual_seed(1)
    assert draw_tuples(50)[0].tolist() == draw(1)


def test_a_share_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"negative_share=1\.5"):
        draw_tuples(4, negative_share=1.5)
