"""Targets are probabilities without gradient."""

import pytest
import torch

from ssl_video.semi.targets import SelfModel


def test_targets_are_detached_float32_probabilities() -> None:
    logits = torch.randn(6, 4, dtype=torch.bfloat16, requires_grad=True)
    targets = SelfModel("weak")({"weak": logits})
    assert targets.probs.dtype == torch.float32
    assert not targets.probs.requires_grad
    torch.testing.assert_close(targets.probs.sum(dim=1), torch.ones(6))
    assert torch.equal(targets.classes, logits.argmax(dim=1))
    assert torch.equal(targets.confidence, targets.probs.gather(1, targets.classes[:, None])[:, 0])


def test_temperature_sharpens() -> None:
    """UDA's T = 0.4 turns [.8, .2] into [32/33, 1/33]."""
    logits = torch.tensor([[0.8, 0.2]]).log()
    sharpened = SelfModel("weak", temperature=0.4)({"weak": logits}).probs
    torch.testing.assert_close(sharpened, torch.tensor([[32 / 33, 1 / 33]]))
    with pytest.raises(ValueError, match="temperature=0"):
        SelfModel("weak", temperature=0)
