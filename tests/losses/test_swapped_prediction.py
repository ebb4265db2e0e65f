import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_video.losses.swapped_prediction import sinkhorn, swapped_prediction
from ssl_video.utils.distributed import rank
from support.gloo import run_in_two_processes


def cosines(samples: int, prototypes: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(samples, prototypes, generator=generator, dtype=torch.float64) - 1) * 0.5


def oracle_codes(scores: Tensor, *, epsilon: float, num_iterations: int) -> np.ndarray:
    """The definition: exp, divide by the sum, then marginals 1/K and 1/B in turn, times B."""
    q = np.exp(scores.numpy() / epsilon)
    q /= q.sum()
    for _ in range(num_iterations):
        q = q / q.sum(axis=0, keepdims=True) / q.shape[1]
        q = q / q.sum(axis=1, keepdims=True) / q.shape[0]
    return q * q.shape[0]


@pytest.mark.parametrize("num_iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_codes_equal_the_definition(num_iterations, epsilon):
    scores = cosines(12, 5)
    codes = sinkhorn(scores, epsilon=epsilon, num_iterations=num_iterations)
    expected = oracle_codes(scores, epsilon=epsilon, num_iterations=num_iterations)
    np.testing.assert_allclose(codes.numpy(), expected, rtol=1e-10)


def test_codes_sum_to_one_and_prototypes_are_balanced_in_the_limit():
    scores = cosines(64, 16)
    for num_iterations, tolerance in ((3, 0.5), (200, 1e-5)):
        codes = sinkhorn(scores, num_iterations=num_iterations)
        torch.testing.assert_close(codes.sum(dim=1), torch.ones(64, dtype=torch.float64))
        imbalance = (codes.sum(dim=0) / 4.0 - 1.0).abs().max()
        assert imbalance < tolerance
        if num_iterations == 3:
            assert imbalance > 1e-3  # three iterations balance roughly only


def test_a_collapsed_batch_is_spread_evenly():
    """Samples that all prefer one prototype alike get uniform codes, so the loss cannot win by that."""
    scores = torch.tensor([[0.9, 0.1, -0.3]]).repeat(6, 1)
    torch.testing.assert_close(sinkhorn(scores), torch.full((6, 3), 1 / 3))


def test_large_scores_stay_finite():
    codes = sinkhorn(torch.tensor([[1.0, -1.0], [1.0, -1.0]]), epsilon=0.01)
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(2))


def oracle_loss(scores: list[Tensor], *, temperature: float, num_code_views: int) -> float:
    total = []
    for assigned in range(num_code_views):
        codes = oracle_codes(scores[assigned], epsilon=0.05, num_iterations=3)
        per_view = []
        for view, predicted in enumerate(scores):
            if view != assigned:
                z = predicted.numpy() / temperature
                log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
                per_view.append(-(codes * log_p).sum(axis=1).mean())
        total.append(np.mean(per_view))
    return float(np.mean(total))


@pytest.mark.parametrize(("num_views", "num_code_views"), [(2, 2), (4, 2), (3, 1)])
def test_loss_equals_the_definition(num_views, num_code_views):
    scores = [cosines(10, 6, seed=seed) for seed in range(num_views)]
    loss = swapped_prediction(scores, temperature=0.1, num_code_views=num_code_views)
    expected = oracle_loss(scores, temperature=0.1, num_code_views=num_code_views)
    assert float(loss) == pytest.approx(expected, rel=1e-10)


def test_equal_scores_give_the_logarithm_of_the_prototypes():
    same = torch.zeros(8, 5)
    assert float(swapped_prediction([same, same], temperature=0.1)) == pytest.approx(math.log(5), abs=1e-6)


def test_codes_carry_no_gradient_and_predictions_do():
    assigned, predicted = cosines(10, 6).requires_grad_(), cosines(10, 6, seed=1).requires_grad_()
    swapped_prediction([assigned, predicted], temperature=0.1, num_code_views=1).backward()
    assert assigned.grad is None and predicted.grad.abs().sum() > 0
    codes = sinkhorn(assigned)
    expected = (predicted.detach() / 0.1).softmax(dim=1) - codes  # of a cross-entropy with constant codes
    torch.testing.assert_close(predicted.grad, expected / 0.1 / 10)


def test_order_of_the_batch_does_not_matter():
    scores, order = [cosines(6, 4, seed=seed) for seed in (0, 1)], torch.tensor([3, 1, 5, 0, 2, 4])
    expected = swapped_prediction(scores, temperature=0.1)
    torch.testing.assert_close(swapped_prediction([s[order] for s in scores], temperature=0.1), expected)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="temperature=0"):
        swapped_prediction([cosines(4, 3)] * 2, temperature=0)
    with pytest.raises(ValueError, match=r"1 view\(s\)"):
        swapped_prediction([cosines(4, 3)], temperature=0.1, num_code_views=1)
    with pytest.raises(ValueError, match="num_code_views=3"):
        swapped_prediction([cosines(4, 3)] * 2, temperature=0.1, num_code_views=3)
    with pytest.raises(ValueError, match="epsilon=0"):
        sinkhorn(cosines(4, 3), epsilon=0)


def loss_and_gradient(weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    network = torch.nn.Linear(3, 6, bias=False).double()
    network.load_state_dict({"weight": weight})
    share = slice(None)
    if torch.distributed.is_initialized():
        network = torch.nn.parallel.DistributedDataParallel(network)
        share = slice(0, 4) if rank() == 0 else slice(4, 8)
    scores = network(inputs[:, share].flatten(0, 1)).unflatten(0, (2, -1)).unbind(0)
    loss = swapped_prediction(scores, temperature=0.1)
    loss.backward()
    return loss.detach(), next(network.parameters()).grad


def test_two_ranks_equal_one_process_in_value_and_gradient():
    """Marginals of the prototypes are those of both ranks: normalised apart, the value would differ."""
    generator = torch.Generator().manual_seed(7)
    arguments = tuple(
        F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)
        for shape in ((6, 3), (2, 8, 3))
    )
    loss, gradient = loss_and_gradient(*arguments)
    results = run_in_two_processes(loss_and_gradient, *arguments)
    torch.testing.assert_close((results[0][0] + results[1][0]) / 2, loss)
    for _, other in results:
        torch.testing.assert_close(other, gradient)
    weight, inputs = arguments
    apart = [swapped_prediction(list(inputs[:, part] @ weight.T), temperature=0.1) for part in (slice(4), slice(4, 8))]
    assert abs(sum(apart) / 2 - loss) > 1e-3
