"""Who says what an unlabelled video is: the sources of targets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """What unlabelled videos are taken to be.

    Attributes:
        probs: ``[U, C]`` float32 probabilities, never logits, without gradient.
    """

    probs: Tensor

    @property
    def classes(self) -> Tensor:
        """``[U]`` the most probable class of each video."""
        return self.probs.argmax(dim=1)

    @property
    def confidence(self) -> Tensor:
        """``[U]`` its probability."""
        return self.probs.amax(dim=1)


class TargetSource(Protocol):
    """Makes targets from what the networks say of the views."""

    views: tuple[str, ...]

    def __call__(self, logits: Mapping[str, Tensor]) -> Targets:
        """Targets from the logits ``[U, C]`` of each view."""
        ...


class SelfModel:
    """The network's own prediction of one view.

    Args:
        view: name of the view.
        temperature: of the softmax; below 1 it sharpens (UDA: 0.4).
    """

    def __init__(self, view: str, *, temperature: float = 1.0) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0; 1 leaves the prediction as it is.")
        self.views: tuple[str, ...] = (view,)
        self.temperature = temperature

    @torch.no_grad()
    def __call__(self, logits: Mapping[str, Tensor]) -> Targets:
        """Softmax of the view's logits, in float32."""
        return Targets((logits[self.views[0]].float() / self.temperature).softmax(dim=1))
