import math

import numpy as np
import pytest
import torch

from ssl_video.modules.pairwise_head import PairwiseHead


def test_equals_a_plain_computation():
    head = PairwiseHead(4, num_clips=3, hidden_features=5, num_classes=6).double().eval()
    features = torch.randn(7, 3, 4, dtype=torch.float64)
    x = features.numpy()
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in head.parameters())
    pairs = [np.concatenate([x[:, i], x[:, j]], axis=1) @ w1.T + b1 for i, j in [(0, 1), (0, 2), (1, 2)]]
    expected = np.concatenate([np.maximum(pair, 0) for pair in pairs], axis=1) @ w2.T + b2
    np.testing.assert_allclose(head(features).detach().numpy(), expected, rtol=1e-12)


def test_sizes_of_the_paper():
    head = PairwiseHead(512, num_clips=3, num_classes=6)
    assert head.classifier[-1].in_features == 1536
    assert sum(p.numel() for p in head.parameters()) == (1024 * 512 + 512) + (1536 * 6 + 6)


@pytest.mark.parametrize("num_clips", [2, 3, 4, 5])
def test_every_number_of_clips_gets_logits_and_a_gradient_in_each_clip(num_clips):
    head = PairwiseHead(4, num_clips=num_clips, hidden_features=8, num_classes=math.factorial(num_clips)).eval()
    features = torch.randn(6, num_clips, 4, requires_grad=True)
    logits = head(features)
    assert logits.shape == (6, math.factorial(num_clips))
    logits.square().sum().backward()
    assert features.grad.abs().sum(dim=(0, 2)).min() > 0


def test_the_pair_layer_is_shared():
    # Three times the same clip: all pairs are equal, so the classifier sees one representation three times.
    head = PairwiseHead(4, num_clips=3, hidden_features=5, num_classes=6).eval()
    seen = []
    head.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    head(torch.randn(2, 1, 4).expand(2, 3, 4))
    first, second, third = seen[0].split(5, dim=1)
    assert torch.equal(first, second) and torch.equal(second, third)


def test_dropout_only_in_training():
    head = PairwiseHead(4, num_clips=3, num_classes=6)
    features = torch.randn(2, 3, 4)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


def test_wrong_numbers_of_clips_are_refused():
    with pytest.raises(ValueError, match="num_clips=6"):
        PairwiseHead(4, num_clips=6, num_classes=720)
    with pytest.raises(ValueError, match="2 clips per video"):
        PairwiseHead(4, num_clips=3, num_classes=6)(torch.randn(2, 2, 4))
