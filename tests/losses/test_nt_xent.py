import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_video.losses.nt_xent import nt_xent
from ssl_video.utils.distributed import rank
from support.gloo import run_in_two_processes


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def oracle(first: Tensor, second: Tensor, *, temperature: float, videos: list[int]) -> float:
    """The definition, one embedding at a time."""
    z = np.concatenate([first.numpy(), second.numpy()])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    count = len(first)
    losses = []
    for i in range(2 * count):
        positive = (i + count) % (2 * count)
        kept = [k for k in range(2 * count) if k == positive or videos[k % count] != videos[i % count]]
        weights = {k: math.exp(float(z[i] @ z[k]) / temperature) for k in kept}
        losses.append(-math.log(weights[positive] / sum(weights.values())))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("videos", "expected"), [(4, 1.945910), (8, math.log(15))])
def test_closed_form_all_embeddings_equal(videos, expected):
    same = torch.ones(videos, 3)
    assert float(nt_xent(same, same, temperature=0.1)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("videos", "temperature", "expected", "tolerance"), [(2, 0.5, 0.239545, 1e-6), (4, 0.1, 2.7236e-4, 1e-8)]
)
def test_closed_form_views_equal_videos_orthogonal(videos, temperature, expected, tolerance):
    views = torch.eye(videos, dtype=torch.float64)
    loss = float(nt_xent(views, views, temperature=temperature))
    assert loss == pytest.approx(expected, abs=tolerance)
    assert loss == pytest.approx(math.log(1 + (2 * videos - 2) * math.exp(-1 / temperature)), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("videos", [[0, 1, 2, 3, 4], [3, 1, 3, 2, 1]])
def test_equals_the_definition(temperature, videos):
    first, second = draw(5, 4), draw(5, 4, seed=1)
    loss = nt_xent(first, second, temperature=temperature, videos=torch.tensor(videos))
    assert float(loss) == pytest.approx(oracle(first, second, temperature=temperature, videos=videos), rel=1e-12)


def test_without_numbers_every_row_is_a_video():
    first, second = draw(5, 4), draw(5, 4, seed=1)
    expected = nt_xent(first, second, temperature=0.1, videos=torch.arange(5))
    assert torch.equal(nt_xent(first, second, temperature=0.1), expected)


def test_segments_of_one_video_are_not_each_others_negatives():
    """A batch of one video has no negatives, whatever its segments look like."""
    first, second = draw(3, 4), draw(3, 4, seed=1)
    other = first.clone()
    other[1] = draw(4, seed=2)
    videos = torch.tensor([7, 7, 7])
    assert float(nt_xent(first, second, temperature=0.1, videos=videos)) == 0.0
    assert float(nt_xent(other, second, temperature=0.1, videos=videos)) == 0.0


def test_order_scale_and_exchange_of_views_do_not_matter():
    first, second = draw(6, 5), draw(6, 5, seed=1)
    expected = nt_xent(first, second, temperature=0.1)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(nt_xent(first[order], second[order], temperature=0.1), expected)
    torch.testing.assert_close(nt_xent(second, first, temperature=0.1), expected)
    torch.testing.assert_close(nt_xent(3.0 * first, 0.2 * second, temperature=0.1), expected)
    assert not torch.isclose(nt_xent(first.roll(1, dims=0), second, temperature=0.1), expected)


def test_extreme_logits_stay_finite():
    first = draw(4, 5).float().requires_grad_()
    loss = nt_xent(first, -first.detach(), temperature=1e-3)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(first.grad).all()


def test_autocast_sums_in_full_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert nt_xent(draw(4, 5).float(), draw(4, 5, seed=1).float(), temperature=0.1).dtype == torch.float32


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="temperature=0"):
        nt_xent(draw(4, 5), draw(4, 5), temperature=0)
    with pytest.raises(ValueError, match=r"\[4, 5\] and \[3, 5\]"):
        nt_xent(draw(4, 5), draw(3, 5), temperature=0.1)


def loss_and_gradient(weight: Tensor, inputs: Tensor, videos: Tensor) -> tuple[Tensor, Tensor]:
    network = torch.nn.Linear(3, 4, bias=False).double()
    network.load_state_dict({"weight": weight})
    share = slice(None)
    if torch.distributed.is_initialized():
        network = torch.nn.parallel.DistributedDataParallel(network)
        share = slice(0, 4) if rank() == 0 else slice(4, 8)
    embeddings = network(inputs[:, share].flatten(0, 1)).unflatten(0, (2, -1))
    loss = nt_xent(embeddings[0], embeddings[1], temperature=0.2, videos=videos[share])
    loss.backward()
    return loss.detach(), next(network.parameters()).grad


def test_two_ranks_equal_one_process_in_value_and_gradient():
    """Video 0 has segments on both ranks."""
    inputs = F.normalize(draw(2, 8, 3, seed=3), dim=2)
    arguments = draw(4, 3, seed=7), inputs, torch.tensor([0, 1, 2, 3, 4, 0, 6, 7])
    loss, gradient = loss_and_gradient(*arguments)
    results = run_in_two_processes(loss_and_gradient, *arguments)
    torch.testing.assert_close((results[0][0] + results[1][0]) / 2, loss)
    for _, other in results:
        torch.testing.assert_close(other, gradient)
