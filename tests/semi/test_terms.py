"""Terms put together: FixMatch and pseudo-labels are a line each, and what is off costs nothing."""

import math

import pytest
import torch
from torch import Tensor

from ssl_video.semi.consistency import HardCE, InstanceNTXent
from ssl_video.semi.selection import All, FixedThreshold
from ssl_video.semi.targets import SelfModel
from ssl_video.semi.terms import Term, active_terms, describe_selection, unlabeled_losses

FIXMATCH = {"fixmatch": Term(SelfModel("weak"), FixedThreshold(0.95), HardCE("strong"))}


def losses(weights: dict[str, float], **logits: Tensor) -> dict[str, Tensor]:
    videos = torch.arange(len(next(iter(logits.values()))))
    return unlabeled_losses(active_terms(FIXMATCH, weights), weights, logits=logits, videos=videos)


def test_fixmatch_is_one_term() -> None:
    """[3, 0, 0] is below the threshold, [4, 0, 0] above; a student that knows nothing pays ln 3, over two videos."""
    weak = torch.tensor([[3.0, 0.0, 0.0], [4.0, 0.0, 0.0]], requires_grad=True)
    strong = torch.zeros(2, 3, requires_grad=True)
    loss = losses({"fixmatch": 1.0}, weak=weak, strong=strong)["fixmatch"]
    assert loss.item() == pytest.approx(math.log(3) / 2, abs=1e-6)
    loss.backward()
    assert weak.grad is None
    assert strong.grad is not None and strong.grad[0].abs().sum() == 0 and strong.grad[1].abs().sum() > 0
    assert FIXMATCH["fixmatch"].views == {"weak", "strong"}


def test_weight_multiplies_and_zero_is_off() -> None:
    logits = {"weak": torch.randn(8, 3) * 9, "strong": torch.randn(8, 3)}
    one, three = (losses({"fixmatch": weight}, **logits)["fixmatch"] for weight in (1.0, 3.0))
    torch.testing.assert_close(3 * one, three)
    assert losses({"fixmatch": 0.0}, **logits) == {}
    assert losses({}, **logits) == {}


def test_order_of_the_batch_does_not_matter() -> None:
    logits = {"weak": torch.randn(8, 3) * 9, "strong": torch.randn(8, 3)}
    order = torch.randperm(8)
    mixed = {name: value[order] for name, value in logits.items()}
    torch.testing.assert_close(
        losses({"fixmatch": 1.0}, **logits)["fixmatch"], losses({"fixmatch": 1.0}, **mixed)["fixmatch"]
    )


def test_description_of_a_selection() -> None:
    logits = {"weak": torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.1, 0.0]])}
    told = describe_selection(FIXMATCH, logits=logits, hidden_labels=torch.tensor([0, 1, -1, 0]))
    assert told["util_ratio"].item() == 0.75
    assert told["pseudo_acc"].item() == 0.5  # of the two sure ones whose label is known
    sure, unsure = 1 / (1 + math.exp(-9)), 1 / (1 + math.exp(-0.1))
    assert told["mean_conf"].item() == pytest.approx((3 * sure + unsure) / 4, abs=1e-6)


def test_description_without_labels_or_terms() -> None:
    logits = {"weak": torch.randn(4, 2)}
    unknown = torch.full((4,), -1)
    assert describe_selection(FIXMATCH, logits=logits, hidden_labels=unknown)["pseudo_acc"].isnan()
    nothing = describe_selection({}, logits={}, hidden_labels=unknown)
    assert nothing["util_ratio"].item() == 0
    assert nothing["mean_conf"].isnan()


def test_views_of_a_contrast() -> None:
    assert Term(SelfModel("fast"), All(), InstanceNTXent("fast", "slow")).views == {"fast", "slow"}
