"""What is sure enough counts."""

import torch

from ssl_video.semi.selection import All, FixedThreshold
from ssl_video.semi.targets import SelfModel, Targets


def targets_of(*logits: list[float]) -> Targets:
    return SelfModel("weak")({"weak": torch.tensor(logits)})


def test_threshold_is_inclusive_and_of_the_probability() -> None:
    """Of three classes, [3, 0, 0] is 0.909443 sure and [4, 0, 0] is 0.964663."""
    targets = targets_of([3.0, 0.0, 0.0], [4.0, 0.0, 0.0], [13.0, 10.0, 10.0], [0.0, 0.0, 4.0])
    torch.testing.assert_close(targets.confidence[:2], torch.tensor([0.909443, 0.964663]), atol=1e-6, rtol=0)
    assert FixedThreshold(0.95)(targets).tolist() == [0, 1, 0, 1]
    assert FixedThreshold(float(targets.confidence[0]))(targets).tolist() == [1, 1, 1, 1]


def test_extremes_keep_everything_or_nothing() -> None:
    targets = SelfModel("weak")({"weak": torch.randn(50, 4)})
    assert FixedThreshold(0.25)(targets).sum() == 50
    assert FixedThreshold(1.01)(targets).sum() == 0
    assert All()(targets).tolist() == [1] * 50


def test_weights_follow_the_order_of_the_batch() -> None:
    logits = torch.randn(20, 3) * 3
    order = torch.randperm(20)
    policy = FixedThreshold(0.8)
    weights = policy(SelfModel("weak")({"weak": logits}))
    assert 0 < weights.sum() < 20
    assert torch.equal(policy(SelfModel("weak")({"weak": logits[order]})), weights[order])
