import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_video.losses.info_nce import info_nce_queue
from ssl_video.utils.distributed import rank
from support.gloo import run_in_two_processes

FORMS = ["mean_of_ce", "sum_in_log"]


def unit(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(values, dim=-1)


def oracle(query: Tensor, keys: Tensor, queue: Tensor, *, temperature: float, multi_positive: str) -> float:
    """The definition, one query and one key at a time."""
    losses = []
    for q, positives in zip(query.numpy(), keys.numpy(), strict=True):
        negatives = sum(np.exp(q @ n / temperature) for n in queue.numpy())
        p = [np.exp(q @ k / temperature) for k in positives]
        if multi_positive == "sum_in_log":
            losses.append(-np.log(sum(p) / (sum(p) + negatives)))
        else:
            losses.append(np.mean([-np.log(one / (one + negatives)) for one in p]))
    return float(np.mean(losses))


def loss_and_gradient_on_a_rank(weight: Tensor, inputs: Tensor, keys: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
    network = torch.nn.Linear(3, 4, bias=False).double()
    network.load_state_dict({"weight": weight})
    parallel = torch.nn.parallel.DistributedDataParallel(network)
    query = F.normalize(parallel(inputs.chunk(2)[rank()]), dim=1)
    loss = info_nce_queue(query, keys.chunk(2)[rank()], queue, temperature=0.2)
    loss.backward()
    return loss.detach(), network.weight.grad


@pytest.mark.parametrize(("temperature", "expected"), [(0.07, 0.040135), (0.1, 1.380108), (0.2, 6.092617)])
@pytest.mark.parametrize("form", FORMS)
def test_closed_form_positive_equal_negatives_orthogonal(temperature, expected, form):
    query = torch.tensor([[1.0, 0.0]]).repeat(3, 1)
    queue = torch.tensor([[0.0, 1.0]]).expand(65536, 2)
    loss = info_nce_queue(query, query.unsqueeze(1), queue, temperature=temperature, multi_positive=form)
    assert float(loss) == pytest.approx(expected, abs=2e-6)


def test_closed_form_all_logits_equal():
    query = torch.tensor([[1.0, 0.0]])
    loss = info_nce_queue(query, query.unsqueeze(1), query.expand(65536, 2), temperature=0.1)
    assert float(loss) == pytest.approx(math.log(65537), abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_positives", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_definition(form, num_positives, temperature):
    tensors = unit(6, 5), unit(6, num_positives, 5, seed=1), unit(40, 5, seed=2)
    loss = info_nce_queue(*tensors, temperature=temperature, multi_positive=form)
    assert float(loss) == pytest.approx(
        oracle(*tensors, temperature=temperature, multi_positive=form), rel=1e-12, abs=1e-14
    )


def test_one_positive_is_cross_entropy_over_one_and_k_classes_in_value_and_gradient():
    gradients, losses = [], []
    keys, queue = unit(6, 5, seed=1), unit(40, 5, seed=2)
    for form in [*FORMS, "cross_entropy"]:
        query = unit(6, 5).requires_grad_()
        if form == "cross_entropy":
            logits = torch.cat([(query * keys).sum(dim=1, keepdim=True), query @ queue.T], dim=1) / 0.1
            loss = F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
        else:
            loss = info_nce_queue(query, keys.unsqueeze(1), queue, temperature=0.1, multi_positive=form)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(query.grad)
    for loss, gradient in zip(losses[:2], gradients[:2], strict=True):
        torch.testing.assert_close(loss, losses[2])
        torch.testing.assert_close(gradient, gradients[2])


@pytest.mark.parametrize("seed", range(5))
def test_sum_in_log_lies_below_with_several_positives(seed):
    tensors = unit(6, 5, seed=seed), unit(6, 3, 5, seed=seed + 10), unit(40, 5, seed=seed + 20)
    mean_of_ce, sum_in_log = (float(info_nce_queue(*tensors, temperature=0.2, multi_positive=form)) for form in FORMS)
    assert sum_in_log < mean_of_ce


@pytest.mark.parametrize("form", FORMS)
def test_joint_permutations_do_not_matter(form):
    query, keys, queue = unit(6, 5), unit(6, 3, 5, seed=1), unit(40, 5, seed=2)
    expected = info_nce_queue(query, keys, queue, temperature=0.1, multi_positive=form)
    order, positives, negatives = torch.randperm(6), torch.randperm(3), torch.randperm(40)
    again = info_nce_queue(
        query[order], keys[order][:, positives], queue[negatives], temperature=0.1, multi_positive=form
    )
    torch.testing.assert_close(again, expected)
    alone = info_nce_queue(query.roll(1, dims=0), keys, queue, temperature=0.1, multi_positive=form)
    assert not torch.isclose(alone, expected)


@pytest.mark.parametrize("form", FORMS)
def test_extreme_logits_stay_finite(form):
    query = unit(4, 5).float().requires_grad_()
    keys = torch.stack([query.detach(), -query.detach()], dim=1)
    loss = info_nce_queue(query, keys, -keys[:, 0], temperature=1e-3, multi_positive=form)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(query.grad).all()


def test_autocast_does_not_coarsen_the_sum():
    query, keys, queue = unit(32, 16).float(), unit(32, 1, 16, seed=1).float(), unit(4096, 16, seed=2).float()
    errors = []
    for one in range(32):
        exact = info_nce_queue(query[one : one + 1], keys[one : one + 1], queue, temperature=0.1)
        with torch.autocast("cpu", torch.bfloat16):
            loss = info_nce_queue(query[one : one + 1], keys[one : one + 1], queue, temperature=0.1)
        assert loss.dtype == torch.float32
        errors.append(abs(float(loss - exact)))
    # The products' own rounding leaves about .005; a sum rounded to 8 bits would add about .015.
    assert sum(errors) / 32 < 0.01


def test_no_tensor_of_n_p_k_is_saved_for_backward():
    sizes = []
    query, keys, queue = unit(4, 5).requires_grad_(), unit(4, 3, 5, seed=1), unit(1000, 5, seed=2)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda t: t):
        info_nce_queue(query, keys, queue, temperature=0.1)
    assert max(sizes) <= 1000 * 5


def test_two_ranks_equal_one_process_in_value_and_gradient():
    weight = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7)).requires_grad_()
    inputs, keys, queue = unit(8, 3, seed=3), unit(8, 2, 4, seed=4), unit(20, 4, seed=5)
    loss = info_nce_queue(F.normalize(inputs @ weight.T, dim=1), keys, queue, temperature=0.2)
    loss.backward()
    results = run_in_two_processes(loss_and_gradient_on_a_rank, weight.detach(), inputs, keys, queue)
    torch.testing.assert_close((results[0][0] + results[1][0]) / 2, loss.detach())
    for _, gradient in results:
        torch.testing.assert_close(gradient, weight.grad)


def test_wrong_input_is_refused():
    query, keys, queue = unit(6, 5), unit(6, 1, 5), unit(40, 5)
    with pytest.raises(ValueError, match="temperature=0"):
        info_nce_queue(query, keys, queue, temperature=0)
    with pytest.raises(ValueError, match="unsqueeze"):
        info_nce_queue(query, keys.squeeze(1), queue, temperature=0.1)
    with pytest.raises(ValueError, match="'mean'"):
        info_nce_queue(query, keys, queue, temperature=0.1, multi_positive="mean")


def test_excluded_rows_are_no_negatives():
    query, keys, queue = unit(3, 4), unit(3, 1, 4), unit(5, 4)
    excluded = torch.zeros(3, 5, dtype=torch.bool)
    excluded[:, 3:] = True
    expected = info_nce_queue(query, keys, queue[:3], temperature=0.2)
    torch.testing.assert_close(info_nce_queue(query, keys, queue, temperature=0.2, excluded=excluded), expected)
