"""Sorting frames: what is presented, what is answered, and that it is learnt only where there is an order."""

import math

import numpy as np
import pytest
import torch

from ssl_video.data.solvable_videos import Generator
from ssl_video.methods.opn import OPN
from ssl_video.pretext.permutations import draw_orders, order_classes
from ssl_video.utils.errors import InputError
from support.methods import build_method, random_batch
from support.order import Corners, Differences, accuracy, at_chance, coded_batch, make, train


@pytest.mark.parametrize(("merge", "classes"), [("position", 12), ("time", 12), ("none", 24)])
def test_backbone_sees_the_shuffled_frames_one_by_one(merge: str, classes: int) -> None:
    backbone = Corners(3)
    method = make(OPN, backbone, merge=merge)
    torch.manual_seed(4)
    logits, labels = method.questions(coded_batch(5, 1, 4))  # type: ignore[attr-defined]
    torch.manual_seed(4)
    orders, expected = draw_orders(5, order_classes(merge))  # type: ignore[arg-type]
    assert logits.shape == (5, classes) and torch.equal(labels, expected)
    assert backbone.seen[0].shape == (20, 3, 1, 4, 4)
    assert torch.equal(backbone.seen[0][:, 0, 0, 0, 0].reshape(5, 4), (100 * torch.arange(5)[:, None] + orders).float())


def test_loss_equals_a_plain_computation() -> None:
    method = make(OPN, Corners(3), dropout=0.0)
    batch = coded_batch(6, 1, 4)
    torch.manual_seed(4)
    loss = method.losses(batch)["order"].item()
    torch.manual_seed(4)
    orders, labels = draw_orders(6, order_classes())
    features = torch.stack([batch.clips[b, 0, :, orders[b], 0, 0].T for b in range(6)])
    logits = method.head(features).detach().double().numpy()  # the head has its own oracle
    terms = [np.log(np.exp(logits[b] - logits[b, labels[b]]).sum()) for b in range(6)]
    assert loss == pytest.approx(float(np.mean(terms)), rel=1e-5)


def test_untrained_loss_is_about_the_logarithm_of_the_number_of_classes() -> None:
    method, config = build_method("opn")
    loss = method.losses(random_batch(config, batch_size=24))["order"]
    assert loss.item() == pytest.approx(math.log(12), abs=0.5)
    assert 0 <= method.observed["accuracy"] <= 1


def test_gradient_reaches_every_frame() -> None:
    method = make(OPN, Differences(), gaussian_init=False)
    frames = torch.randn(6, 4, 3, 32, 32, requires_grad=True)
    assert isinstance(method, OPN)
    method.predict(frames).square().sum().backward()
    assert frames.grad is not None
    assert frames.grad.abs().sum(dim=(0, 2, 3, 4)).min() > 0


def test_wrong_settings_are_refused() -> None:
    method, _ = build_method("opn")
    method.check_batch(num_views=1, num_frames=4)
    with pytest.raises(InputError, match=r"sampler.num_frames=5.*sampler.num_frames=4"):
        method.check_batch(num_views=1, num_frames=5)


def four_times(rng: np.random.Generator) -> np.ndarray:
    return (np.sort(rng.choice(43, 4, replace=False)) + 7 * np.arange(4))[None]


def held_out_accuracy(generator: Generator, merge: str, *, steps: int = 400) -> float:
    method = make(OPN, Differences(), merge=merge, hidden_features=128, gaussian_init=False, batch_norm_momentum=0.1)
    train(method, generator, four_times, steps=steps)
    return accuracy(method, generator, four_times)


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["position", "time", "none"])
def test_order_is_learnt_where_it_can_be_told(merge: str) -> None:
    assert held_out_accuracy("A", merge) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("merge", "ceiling"), [("position", 2 / 3), ("time", 1.0), ("none", 1 / 2)])
def test_order_is_learnt_up_to_what_a_reversible_motion_shows(merge: str, ceiling: float) -> None:
    share = held_out_accuracy("B", merge)
    assert 0.9 * ceiling <= share <= ceiling + 3 * math.sqrt(ceiling * (1 - ceiling) / 2000)


@pytest.mark.slow
@pytest.mark.parametrize(("merge", "chance"), [("position", 1 / 12), ("time", 1 / 12), ("none", 1 / 24)])
def test_order_stays_at_chance_where_it_cannot_be_told(merge: str, chance: float) -> None:
    assert at_chance(held_out_accuracy("C", merge), chance)
