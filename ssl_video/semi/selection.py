"""Which targets count, and how much: the policies of selection."""

from typing import Protocol

import torch
from torch import Tensor

from ssl_video.semi.targets import Targets


class SelectionPolicy(Protocol):
    """Weighs targets."""

    def __call__(self, targets: Targets) -> Tensor:
        """``[U]`` weight of each video, 0 for those that don't count, without gradient."""
        ...


class All:
    """Every target counts."""

    def __call__(self, targets: Targets) -> Tensor:
        """Ones ``[U]``."""
        return torch.ones_like(targets.confidence)


class FixedThreshold:
    """Targets that the source is sure of count: ``confidence >= threshold``.

    Args:
        threshold: at or below 1/C it keeps everything, above 1 nothing.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, targets: Targets) -> Tensor:
        """1 or 0 for each video ``[U]``."""
        return (targets.confidence >= self.threshold).to(targets.probs.dtype)
