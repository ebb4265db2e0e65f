"""Shuffle and learn: what is presented, what is answered, and that it is learnt only where there is an order."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from ssl_video.data.solvable_videos import Generator
from ssl_video.methods.shuffle_and_learn import ShuffleAndLearn
from ssl_video.pretext.tuples import draw_tuples
from ssl_video.utils.errors import InputError
from support.methods import build_method, random_batch
from support.order import Corners, Differences, ask, at_chance, coded_batch, make, train


def test_backbone_sees_the_three_frames_of_each_tuple_one_by_one() -> None:
    backbone = Corners(3)
    method = make(ShuffleAndLearn, backbone, tuples_per_video=2)
    torch.manual_seed(4)
    logits, labels = method.questions(coded_batch(5, 1, 5))  # type: ignore[attr-defined]
    torch.manual_seed(4)
    places, expected = draw_tuples(10)
    assert logits.shape == (10, 2) and torch.equal(labels, expected)
    assert backbone.seen[0].shape == (30, 3, 1, 4, 4)
    videos = 100 * torch.arange(5).repeat_interleave(2)
    assert torch.equal(backbone.seen[0][:, 0, 0, 0, 0].reshape(10, 3), (videos[:, None] + places).float())


def test_loss_equals_a_plain_computation() -> None:
    """Concatenate the three features, one linear layer, cross-entropy: with a loop over the tuples."""
    method = make(ShuffleAndLearn, Corners(3))
    batch = coded_batch(6, 1, 5)
    torch.manual_seed(4)
    loss = method.losses(batch)["verification"].item()
    torch.manual_seed(4)
    places, labels = draw_tuples(6)
    weight, bias = (parameter.detach().numpy() for parameter in method.head.parameters())  # type: ignore[operator, union-attr]
    terms = []
    for video in range(6):
        features = np.concatenate([batch.clips[video, 0, :, place, 0, 0].numpy() for place in places[video]])
        logits = weight @ features + bias
        terms.append(np.log(np.exp(logits - logits[labels[video]]).sum()))
    assert loss == pytest.approx(float(np.mean(terms)), rel=1e-5)


def test_head_of_the_paper() -> None:
    method = make(ShuffleAndLearn, Corners(4096))
    head = method.head
    assert (head.in_features, head.out_features) == (12288, 2)
    assert head.weight.abs().max() <= math.sqrt(3 / 12288) and head.weight.std() > 0.99 * math.sqrt(1 / 12288)
    assert (head.bias == 0).all()


def test_untrained_loss_is_about_ln_2_and_what_is_observed_is_no_accuracy() -> None:
    method, config = build_method("shuffle_and_learn")
    loss = method.losses(random_batch(config, batch_size=24))["verification"]
    assert loss.item() == pytest.approx(math.log(2), abs=0.5)
    assert set(method.observed) == {"balanced_accuracy", "auc"}


def test_observed_by_hand_and_left_out_where_only_one_kind_was_drawn() -> None:
    method = make(ShuffleAndLearn, Corners(3))
    assert isinstance(method, ShuffleAndLearn)
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    method._observe(logits, torch.tensor([0, 0, 0, 1]))  # says "right" of the second and the last
    assert method.observed["balanced_accuracy"].item() == pytest.approx((2 / 3 + 1) / 2)
    assert method.observed["auc"].item() == pytest.approx(1.0)
    method.observed.clear()
    method._observe(logits, torch.zeros(4, dtype=torch.int64))
    assert method.observed == {}


def test_wrong_settings_are_refused() -> None:
    method, _ = build_method("shuffle_and_learn")
    method.check_batch(num_views=1, num_frames=5)
    with pytest.raises(InputError, match=r"sampler.num_frames=4.*sampler.num_frames=5"):
        method.check_batch(num_views=1, num_frames=4)
    with pytest.raises(InputError, match=r"negative_share=1.0"):
        make(ShuffleAndLearn, Corners(3), negative_share=1.0)
    with pytest.raises(InputError, match="tuples_per_video=0"):
        make(ShuffleAndLearn, Corners(3), tuples_per_video=0)


def five_times(rng: np.random.Generator) -> np.ndarray:
    first = rng.integers(14, 25)
    last = first + rng.integers(14, 22)
    before, middle, after = rng.integers(0, first - 11), rng.integers(first + 5, last - 4), rng.integers(last + 12, 64)
    return np.array([[before, first, middle, last, after]])


def held_out(generator: Generator) -> tuple[float, float]:
    """Balanced accuracy and area under the curve after a short training."""
    method = make(ShuffleAndLearn, Differences(), tuples_per_video=2)
    train(method, generator, five_times, steps=400)
    method.tuples_per_video = 1
    logits, labels = ask(method, generator, five_times, questions=4000)
    right = logits.argmax(dim=1) == labels
    balanced = torch.stack([right[labels == kind].float().mean() for kind in (0, 1)]).mean().item()
    return balanced, binary_auroc(logits.softmax(dim=1)[:, 1], labels).item()


@pytest.mark.slow
def test_order_is_learnt_where_it_can_be_told() -> None:
    balanced, area = held_out("A")
    assert balanced >= 0.95 and area >= 0.98


@pytest.mark.slow
def test_order_stays_at_chance_where_it_cannot_be_told() -> None:
    balanced, area = held_out("C")
    assert at_chance(balanced, 0.5)
    right, wrong = 1000, 3000
    assert abs(area - 0.5) <= 3 * math.sqrt((right + wrong + 1) / (12 * right * wrong))
