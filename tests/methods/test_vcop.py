"""Clip order prediction: the order is told from what is presented, and can't be told where there is nothing to tell."""

import math

import numpy as np
import pytest
import torch

from ssl_video.data.solvable_videos import Generator
from ssl_video.methods.vcop import VCOP
from ssl_video.pretext.permutations import draw_permutations
from ssl_video.utils.errors import InputError
from support.methods import build_method, random_batch
from support.order import Corners, accuracy, at_chance, coded_batch, make, train


def test_untrained_loss_is_about_the_logarithm_of_the_number_of_orders() -> None:
    method, config = build_method("vcop")
    loss = method.losses(random_batch(config, batch_size=16))["order"]
    assert loss.item() == pytest.approx(math.log(6), abs=0.3)


def test_accuracy_is_observed_beside_the_loss() -> None:
    method, config = build_method("vcop")
    method.losses(random_batch(config))
    assert 0 <= method.observed["accuracy"] <= 1


@pytest.mark.parametrize(("clips", "orders"), [(2, 2), (4, 24)])
def test_other_numbers_of_clips(clips: int, orders: int) -> None:
    method, config = build_method("vcop", f"method.num_clips={clips}", f"sampler.num_views={clips}")
    assert isinstance(method, VCOP)
    assert method.predict(random_batch(config).clips).shape == (4, orders)


@pytest.mark.parametrize("clips", [1, 6])
def test_one_or_six_clips_are_refused(clips: int) -> None:
    with pytest.raises(InputError, match=f"num_clips={clips} must be 2 to 5"):
        build_method("vcop", f"method.num_clips={clips}")


def test_sampler_must_give_as_many_clips_as_are_ordered() -> None:
    method, _ = build_method("vcop")
    with pytest.raises(InputError, match=r"sampler.num_views=2.*num_clips=3.*sampler.num_views=3"):
        method.check_batch(num_views=2, num_frames=8)


def test_questions_are_the_drawn_orders() -> None:
    method = make(VCOP, Corners(9))
    backbone = method.backbone
    assert isinstance(backbone, Corners)
    torch.manual_seed(4)
    logits, labels = method.questions(coded_batch(5, 3, 4))  # type: ignore[attr-defined]
    torch.manual_seed(4)
    permutations, expected = draw_permutations(5, 3)
    assert logits.shape == (5, 6) and torch.equal(labels, expected)
    first_frames = backbone.seen[0][:, 0, 0, 0, 0].reshape(5, 3)
    assert torch.equal(first_frames, (100 * torch.arange(5)[:, None] + 10 * permutations).float())


def test_loss_is_the_cross_entropy_of_the_questions() -> None:
    method = make(VCOP, Corners(9), dropout=0.0)
    batch = coded_batch(6, 3, 4)
    torch.manual_seed(4)
    logits, labels = method.questions(batch)  # type: ignore[attr-defined]
    scores = logits.detach().double().numpy()
    terms = [np.log(np.exp(scores[b] - scores[b, labels[b]]).sum()) for b in range(6)]
    torch.manual_seed(4)
    assert method.losses(batch)["order"].item() == pytest.approx(float(np.mean(terms)), rel=1e-5)


def three_clips(rng: np.random.Generator) -> np.ndarray:
    """Three clips of four frames, two apart, with gaps of about a clip."""
    return rng.integers(0, 24) + 16 * np.arange(3)[:, None] + 2 * np.arange(4)


def held_out_accuracy(generator: Generator, *, steps: int = 150) -> float:
    """Trains clip order prediction for some steps and asks it about videos it has not seen, with drawn orders."""
    method, _ = build_method("vcop", total_steps=steps)
    train(method, generator, three_clips, steps=steps, videos=24)
    return accuracy(method, generator, three_clips)


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["A", "B"])
def test_order_is_learnt_where_it_can_be_told(generator: Generator) -> None:
    """Also of a motion that looks the same backwards: each clip's own motion tells the direction."""
    assert held_out_accuracy(generator) >= 0.95


@pytest.mark.slow
def test_order_stays_at_chance_where_it_cannot_be_told() -> None:
    """Control C with the same code, steps and sizes: within three deviations of 1/6 on 2,000 held-out tuples."""
    assert at_chance(held_out_accuracy("C"), 1 / 6)


@pytest.mark.slow
def test_a_palindrome_is_told_in_half_of_the_cases_at_most() -> None:
    assert held_out_accuracy("E") <= 1 / 2 + 3 * math.sqrt(1 / 4 / 2000)
