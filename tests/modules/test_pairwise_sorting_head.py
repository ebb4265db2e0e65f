import numpy as np
import pytest
import torch

from ssl_video.modules.pairwise_sorting_head import PairwiseSortingHead
from ssl_video.optim.parameter_groups import decay_groups

PAIRS = [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3)]


def make(**settings) -> PairwiseSortingHead:
    torch.manual_seed(0)
    head = PairwiseSortingHead(3, num_classes=12, hidden_features=5, gaussian_init=False, **settings).double()
    with torch.no_grad():
        for parameter in [*head.norm.weights, *head.norm.biases]:
            parameter.normal_()
    return head


def oracle(head: PairwiseSortingHead, x: np.ndarray, *, training: bool, mean, var):
    """Logits, and the running statistics afterwards, with a loop over the pairs."""
    array = lambda parameter: parameter.detach().numpy()  # noqa: E731
    parts = []
    for place, (i, j) in enumerate(PAIRS):
        z = np.concatenate([x[:, i], x[:, j]], axis=1) @ array(head.pair.weight).T + array(head.pair.bias)
        m, v = (z.mean(0), z.var(0)) if training else (mean, var)
        if training:
            mean = 0.9 * mean + 0.1 * m
            var = 0.9 * var + 0.1 * z.var(0, ddof=1)
        z = (z - m) / np.sqrt(v + 1e-5) * array(head.norm.weights[place]) + array(head.norm.biases[place])
        parts.append(np.maximum(z, 0))
    return np.concatenate(parts, axis=1) @ array(head.classifier.weight).T + array(head.classifier.bias), mean, var


def test_equals_a_plain_computation_in_training_and_after():
    head = make(dropout=0.0, batch_norm_momentum=0.1)
    mean, var = np.zeros(5), np.ones(5)
    for _ in range(2):
        x = torch.randn(7, 4, 3, dtype=torch.float64)
        expected, mean, var = oracle(head, x.numpy(), training=True, mean=mean, var=var)
        np.testing.assert_allclose(head(x).detach().numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(head.norm.running_mean.numpy(), mean)
    np.testing.assert_allclose(head.norm.running_var.numpy(), var)
    head.eval()
    expected, _, _ = oracle(head, x.numpy(), training=False, mean=mean, var=var)
    np.testing.assert_allclose(head(x).detach().numpy(), expected, rtol=1e-9)


def test_sizes_of_the_released_network():
    head = PairwiseSortingHead(1024, num_classes=12)
    assert (head.pair.in_features, head.pair.out_features) == (2048, 512)
    assert (head.classifier.in_features, head.classifier.out_features) == (3072, 12)
    assert head.norm.running_mean.shape == (512,)
    assert len(head.norm.weights) == len(head.norm.biases) == 6


def test_start_of_the_released_network():
    head = PairwiseSortingHead(1024, num_classes=12)
    for layer in (head.pair, head.classifier):
        assert layer.weight.std().item() == pytest.approx(0.005, rel=0.02)
        assert (layer.bias == 1).all()
    assert head.norm.momentum == 0.001


def test_the_pair_layer_is_shared():
    head = make().eval()
    seen = []
    head.pair.register_forward_hook(lambda module, inputs, output: seen.append(output))
    features = torch.randn(2, 4, 3, dtype=torch.float64)
    head(features)
    ours = dict(zip(PAIRS, seen, strict=True))
    seen.clear()
    head(features[:, [1, 0, 3, 2]])
    swapped = dict(zip(PAIRS, seen, strict=True))
    # Presented as 1 0 3 2, the pair of places (1, 2) is of the frames 0 and 3, and (0, 3) of 1 and 2.
    assert torch.equal(swapped[1, 2], ours[0, 3]) and torch.equal(swapped[0, 3], ours[1, 2])


def test_gradient_reaches_each_frame_and_each_pairs_scale():
    head = make().eval()
    features = torch.randn(9, 4, 3, dtype=torch.float64, requires_grad=True)
    head(features).square().sum().backward()
    assert features.grad.abs().sum(dim=(0, 2)).min() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.norm.parameters())


def test_eval_answers_do_not_depend_on_the_rest_of_the_batch():
    head = make()
    for _ in range(3):
        head(torch.randn(8, 4, 3, dtype=torch.float64))
    head.eval()
    features = torch.randn(6, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(head(features)[:2], head(features[:2]), rtol=0, atol=1e-10)


def test_scales_and_shifts_of_the_norm_do_not_decay():
    head = make()
    own = {id(parameter) for parameter in head.norm.parameters()}
    without = {id(parameter) for parameter in decay_groups(head)[1]["params"]}
    assert len(own) == 12 and own < without


def test_another_number_of_frames_is_refused():
    with pytest.raises(ValueError, match="3 frames per tuple; the head sorts 4"):
        make()(torch.zeros(2, 3, 3, dtype=torch.float64))
