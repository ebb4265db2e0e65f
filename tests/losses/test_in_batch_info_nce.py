import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_video.losses.in_batch_info_nce import in_batch_info_nce
from ssl_video.utils.distributed import rank
from support.gloo import run_in_two_processes


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def oracle(query: Tensor, keys: Tensor, *, temperature: float, videos: list[int]) -> float:
    """The definition, one query at a time."""
    q, k = (t.numpy() / np.linalg.norm(t.numpy(), axis=1, keepdims=True) for t in (query, keys))
    losses = []
    for i in range(len(q)):
        kept = [j for j in range(len(k)) if j == i or videos[j] != videos[i]]
        weights = {j: math.exp(float(q[i] @ k[j]) / temperature) for j in kept}
        losses.append(-math.log(weights[i] / sum(weights.values())))
    return 2 * temperature * sum(losses) / len(losses)


@pytest.mark.parametrize(("temperature", "expected"), [(0.2, 6.654213), (1.0, 33.271065)])
def test_closed_form_total_of_equal_embeddings(temperature, expected):
    same = torch.ones(4096, 2)
    total = 2 * in_batch_info_nce(same, same, temperature=temperature)
    assert float(total) == pytest.approx(expected, abs=2e-5)


def test_closed_form_total_of_orthonormal_videos():
    videos = torch.eye(4, dtype=torch.float64)
    assert float(2 * in_batch_info_nce(videos, videos, temperature=0.2)) == pytest.approx(0.016010, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("videos", [[0, 1, 2, 3, 4], [3, 1, 3, 2, 1]])
def test_equals_the_definition(temperature, videos):
    query, keys = draw(5, 4), draw(5, 4, seed=1)
    loss = in_batch_info_nce(query, keys, temperature=temperature, videos=torch.tensor(videos))
    assert float(loss) == pytest.approx(oracle(query, keys, temperature=temperature, videos=videos), rel=1e-12)
    if len(set(videos)) == 5:
        assert torch.equal(in_batch_info_nce(query, keys, temperature=temperature), loss)


def test_order_and_scale_do_not_matter():
    query, keys = draw(6, 5), draw(6, 5, seed=1)
    expected = in_batch_info_nce(query, keys, temperature=0.2)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(in_batch_info_nce(query[order], keys[order], temperature=0.2), expected)
    torch.testing.assert_close(in_batch_info_nce(3.0 * query, 0.2 * keys, temperature=0.2), expected)
    assert not torch.isclose(in_batch_info_nce(query.roll(1, dims=0), keys, temperature=0.2), expected)


def test_keys_get_no_gradient():
    query, keys = draw(6, 5).requires_grad_(), draw(6, 5, seed=1).requires_grad_()
    in_batch_info_nce(query, keys, temperature=0.2).backward()
    assert keys.grad is None and query.grad.abs().sum() > 0


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="temperature=-1"):
        in_batch_info_nce(draw(4, 5), draw(4, 5), temperature=-1)
    with pytest.raises(ValueError, match=r"\[4, 5\] and keys \[4, 6\]"):
        in_batch_info_nce(draw(4, 5), draw(4, 6), temperature=0.1)


def loss_and_gradient(weight: Tensor, inputs: Tensor, keys: Tensor, videos: Tensor) -> tuple[Tensor, Tensor]:
    network = torch.nn.Linear(3, 4, bias=False).double()
    network.load_state_dict({"weight": weight})
    share = slice(None)
    if torch.distributed.is_initialized():
        network = torch.nn.parallel.DistributedDataParallel(network)
        share = slice(0, 4) if rank() == 0 else slice(4, 8)
    loss = in_batch_info_nce(network(inputs[share]), keys[share], temperature=0.2, videos=videos[share])
    loss.backward()
    return loss.detach(), next(network.parameters()).grad


def test_two_ranks_equal_one_process_in_value_and_gradient():
    """Video 0 has segments on both ranks."""
    arguments = draw(4, 3, seed=7), draw(8, 3, seed=3), draw(8, 4, seed=4), torch.tensor([0, 1, 2, 3, 4, 0, 6, 7])
    loss, gradient = loss_and_gradient(*arguments)
    results = run_in_two_processes(loss_and_gradient, *arguments)
    torch.testing.assert_close((results[0][0] + results[1][0]) / 2, loss)
    for _, other in results:
        torch.testing.assert_close(other, gradient)
