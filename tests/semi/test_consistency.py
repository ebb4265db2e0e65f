"""The terms against closed forms and against loops written out, where their gradient flows, and over two ranks."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_video.semi.consistency import ConsistencyTerm, GroupNTXent, HardCE, InstanceNTXent
from ssl_video.semi.selection import All, FixedThreshold, SelectionPolicy
from ssl_video.semi.targets import SelfModel
from ssl_video.utils.distributed import rank, world_size
from support.gloo import run_in_two_processes

SURE = 200.0  # a logit whose softmax is one-hot


def value(term: ConsistencyTerm, fast: Tensor, slow: Tensor, selection: SelectionPolicy | None = None) -> Tensor:
    logits = {"fast": fast, "slow": slow}
    targets = SelfModel("fast")(logits)
    weights = (selection or All())(targets)
    return term(logits, targets, weights, torch.arange(len(fast)) + 100 * rank())


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def contrast_by_loops(fast: np.ndarray, slow: np.ndarray, temperature: float) -> float:
    """Equation of the paper, one pair after the other."""

    def h(u: np.ndarray, v: np.ndarray) -> float:
        return math.exp(float(u @ v) / math.sqrt(float(u @ u) * float(v @ v)) / temperature)

    losses = []
    for one, other in ((fast, slow), (slow, fast)):
        for i in range(len(one)):
            positive = h(one[i], other[i])
            negatives = sum(h(one[i], p[k]) for k in range(len(one)) if k != i for p in (fast, slow))
            losses.append(-math.log(positive / (positive + negatives)))
    return sum(losses) / len(losses)


# --- instance contrast ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fast", "expected"),
    [
        (torch.eye(2) * SURE, 0.239545),
        (torch.eye(3) * SURE, 0.432653),
        (torch.eye(8) * SURE, 1.062879),
        (torch.zeros(8, 5), math.log(15)),
        (torch.eye(5)[[2, 2]] * SURE, math.log(3)),
        (torch.randn(1, 5), 0.0),
    ],
)
def test_instance_closed_forms(fast: Tensor, expected: float) -> None:
    assert value(InstanceNTXent("fast", "slow"), fast, fast.clone()).item() == pytest.approx(expected, abs=1e-5)


def test_instance_of_one_video_is_zero_whatever_the_outputs() -> None:
    loss = value(InstanceNTXent("fast", "slow"), torch.randn(1, 5), torch.randn(1, 5, requires_grad=True))
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("contrast_on", ["prob", "logit"])
@pytest.mark.parametrize("temperature", [0.5, 0.1])
def test_instance_against_loops(contrast_on: Any, temperature: float) -> None:
    fast, slow = torch.randn(2, 6, 4, dtype=torch.float64).unbind()
    term = InstanceNTXent("fast", "slow", temperature=temperature, contrast_on=contrast_on)
    arrays = [softmax(x.numpy()) if contrast_on == "prob" else x.numpy() for x in (fast, slow)]
    expected = contrast_by_loops(arrays[0], arrays[1], temperature)
    assert value(term, fast, slow).item() == pytest.approx(expected, rel=1e-5)


def test_instance_is_symmetric_in_the_views_where_both_are_trained() -> None:
    fast, slow = (torch.randn(5, 4, requires_grad=True) for _ in range(2))
    term = InstanceNTXent("fast", "slow", stop_gradient=False)
    torch.testing.assert_close(value(term, fast, slow), value(term, slow, fast))
    gradients = torch.autograd.grad(value(term, fast, slow), (fast, slow))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_instance_on_logits_does_not_see_their_length() -> None:
    fast, slow = torch.randn(5, 4), torch.randn(5, 4)
    term = InstanceNTXent("fast", "slow", contrast_on="logit")
    torch.testing.assert_close(value(term, fast, slow), value(term, 3 * fast, 0.2 * slow))
    on_probabilities = InstanceNTXent("fast", "slow")
    assert value(on_probabilities, fast, slow).item() != pytest.approx(value(on_probabilities, 3 * fast, slow).item())


def test_segments_of_one_video_are_not_each_others_negatives() -> None:
    logits = {"fast": torch.eye(3) * SURE, "slow": torch.eye(3) * SURE}
    targets = SelfModel("fast")(logits)
    term = InstanceNTXent("fast", "slow")
    loss = term(logits, targets, torch.ones(3), torch.tensor([7, 7, 7]))
    assert loss.item() == pytest.approx(0, abs=1e-6)


# --- group contrast ---------------------------------------------------------------------------------------------------


def test_groups_of_two_classes_by_hand() -> None:
    """Videos 0 and 1 are class 0 for the fast view, 0 and 2 for the slow one; class 2 is seen by one view only."""
    fast = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 2.0]])
    slow = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 4.0, 0.0]])
    p, q = softmax(fast.double().numpy()), softmax(slow.double().numpy())
    fast_groups = np.stack([(p[0] + p[1]) / 2, p[2]])
    slow_groups = np.stack([(q[0] + q[2]) / 2, (q[1] + q[3]) / 2])
    expected = contrast_by_loops(fast_groups, slow_groups, 0.5)
    assert value(GroupNTXent("fast", "slow"), fast, slow).item() == pytest.approx(expected, rel=1e-5)


def test_groups_of_single_videos_are_the_instance_contrast() -> None:
    fast = torch.eye(6) * 3 + 0.1 * torch.randn(6, 6)
    slow = torch.eye(6) * 2 + 0.1 * torch.randn(6, 6)
    terms = (GroupNTXent("fast", "slow"), InstanceNTXent("fast", "slow"))
    torch.testing.assert_close(*(value(term, fast, slow) for term in terms))


@pytest.mark.parametrize(
    ("fast", "slow"),
    [
        (torch.eye(4)[[0, 1]], torch.eye(4)[[2, 3]]),  # no class in common
        (torch.eye(4)[[0, 1]], torch.eye(4)[[0, 3]]),  # one
    ],
)
def test_fewer_than_two_common_groups_cost_nothing(fast: Tensor, slow: Tensor) -> None:
    slow = slow.clone().requires_grad_()
    loss = value(GroupNTXent("fast", "slow"), fast, slow)
    assert loss.item() == 0
    loss.backward()
    assert slow.grad is not None and slow.grad.abs().sum() == 0


# --- where the gradient flows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("contrast", [InstanceNTXent, GroupNTXent])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_gradient_of_the_contrasts(contrast: Any, stop_gradient: bool) -> None:
    fast, slow = ((torch.eye(4) * 3 + torch.randn(4, 4) / 4).requires_grad_() for _ in range(2))
    loss = value(contrast("fast", "slow", stop_gradient=stop_gradient), fast, slow)
    of_fast, of_slow = torch.autograd.grad(loss, (fast, slow), allow_unused=True)
    assert of_slow.abs().sum() > 0
    assert (of_fast is None) == stop_gradient


# --- hard labels ------------------------------------------------------------------------------------------------------


def test_hard_labels_divide_by_the_whole_batch() -> None:
    """One of four two-class targets is sure; the student knows nothing: ln 2 / 4."""
    weak = torch.tensor([[4.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.0, 0.0]], requires_grad=True)
    strong = torch.zeros(4, 2, requires_grad=True)
    logits = {"weak": weak, "strong": strong}
    targets = SelfModel("weak")(logits)
    loss = HardCE("strong")(logits, targets, FixedThreshold(0.95)(targets), torch.arange(4))
    assert loss.item() == pytest.approx(0.173287, abs=1e-6)
    of_weak, of_strong = torch.autograd.grad(loss, (weak, strong), allow_unused=True)
    assert of_weak is None  # the target's path
    assert of_strong[0].abs().sum() > 0
    assert of_strong[1:].abs().sum() == 0


def test_nothing_selected_is_an_exact_zero_that_propagates() -> None:
    fast = torch.randn(5, 3, requires_grad=True)
    loss = value(HardCE("fast"), fast, fast.detach(), FixedThreshold(1.5))
    assert loss.item() == 0
    loss.backward()
    assert fast.grad is not None and fast.grad.abs().sum() == 0


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature=0"):
        InstanceNTXent("fast", "slow", temperature=0)
    with pytest.raises(ValueError, match="contrast_on='probs'"):
        GroupNTXent("fast", "slow", contrast_on="probs")  # type: ignore[arg-type]


# --- two ranks --------------------------------------------------------------------------------------------------------


def _loss_and_gradient(name: str, stop_gradient: bool) -> tuple[float, Tensor, Tensor]:
    """As DDP does it: each rank its half of the videos, loss and parameter gradient averaged over ranks."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 4, generator=generator).requires_grad_()
    inputs = torch.randn(2, 12, 6, generator=generator)
    share = 12 // world_size()
    own = slice(rank() * share, (rank() + 1) * share)
    contrast: Any = {"instance": InstanceNTXent, "group": GroupNTXent}[name]
    loss = value(contrast("fast", "slow", stop_gradient=stop_gradient), *(inputs[:, own] @ weight).unbind())
    (gradient,) = torch.autograd.grad(loss, weight)
    return loss.item(), gradient, inputs


@pytest.mark.parametrize("name", ["instance", "group"])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_two_processes_equal_one_in_value_and_gradient(name: str, stop_gradient: bool) -> None:
    loss, gradient, _ = _loss_and_gradient(name, stop_gradient)
    assert loss > 0
    ranks = run_in_two_processes(_loss_and_gradient, name, stop_gradient)
    assert sum(own[0] for own in ranks) / 2 == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close((ranks[0][1] + ranks[1][1]) / 2, gradient, atol=1e-6, rtol=1e-4)
