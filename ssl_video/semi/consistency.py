"""What is trained on unlabelled videos: terms that make a view agree with targets, or views with each other.

A term is called with the logits ``[U, C]`` of the views it names, the targets, their weights ``[U]`` and the videos'
numbers ``[U]``, and gives a scalar.
"""

from collections.abc import Mapping
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from ssl_video.losses.nt_xent import nt_xent
from ssl_video.semi.targets import Targets
from ssl_video.utils.distributed import gather_with_grad

ContrastOn = Literal["prob", "logit"]


class ConsistencyTerm(Protocol):
    """A loss of unlabelled videos."""

    views: tuple[str, ...]

    def __call__(self, logits: Mapping[str, Tensor], targets: Targets, weights: Tensor, videos: Tensor) -> Tensor:
        """The loss, a scalar."""
        ...


class HardCE:
    """Cross-entropy of a view against the most probable class of the target, as a label.

    The sum is divided by all unlabelled videos, not by those that count, so that a batch with one sure video pulls less
    than a batch with many (Sohn et al., FixMatch, NeurIPS 2020).

    Args:
        view: the view that is trained.
    """

    def __init__(self, view: str) -> None:
        self.views: tuple[str, ...] = (view,)

    def __call__(self, logits: Mapping[str, Tensor], targets: Targets, weights: Tensor, videos: Tensor) -> Tensor:
        """Mean over all U videos of weight × cross-entropy."""
        losses = cross_entropy(logits[self.views[0]].float(), targets.classes, reduction="none")
        return (losses * weights).mean()


class _TwoViews:
    """What the two contrastive terms of TCL share: their views, what of them is compared, and where gradient flows.

    Args:
        teacher: the view that is not trained.
        student: the view that is.
        temperature: α.
        contrast_on: compare softmax probabilities (TCL's released code) or logits (as the paper writes it).
        stop_gradient: False lets the gradient flow through the teacher's view too, as the paper writes it.
    """

    def __init__(
        self,
        teacher: str,
        student: str,
        *,
        temperature: float = 0.5,
        contrast_on: ContrastOn = "prob",
        stop_gradient: bool = True,
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0; TCL uses 0.5.")
        if contrast_on not in get_args(ContrastOn):
            raise ValueError(f"contrast_on={contrast_on!r} must be one of {', '.join(get_args(ContrastOn))}.")
        self.views: tuple[str, ...] = (teacher, student)
        self.temperature = temperature
        self.contrast_on = contrast_on
        self.stop_gradient = stop_gradient

    def _logits(self, logits: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        # In float32: under autocast the vectors come in 16 bits.
        teacher, student = (logits[view].float() for view in self.views)
        return (teacher.detach() if self.stop_gradient else teacher), student

    def _compared(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1) if self.contrast_on == "prob" else logits


class InstanceNTXent(_TwoViews):
    """Both views of a video say the same, and something else than of other videos: TCL's instance contrast.

    −log(h⁺ / (h⁺ + Σ h)) with h = exp(cos/α) and the 2(U−1) outputs of the other videos as negatives, averaged over
    both directions and over the videos of all ranks (Singh et al., CVPR 2021). Targets and weights play no part.
    """

    def __call__(self, logits: Mapping[str, Tensor], targets: Targets, weights: Tensor, videos: Tensor) -> Tensor:
        """NT-Xent of the two views' outputs."""
        teacher, student = (self._compared(view) for view in self._logits(logits))
        return nt_xent(teacher, student, temperature=self.temperature, videos=videos)


class GroupNTXent(_TwoViews):
    """Videos taken for one class by both views are one: TCL's group contrast.

    Each view's outputs are averaged over the videos that it takes for class l. The averages of the classes that both
    views see are contrasted like instances; with fewer than two such classes the loss is 0. The groups are those of
    the batches of all ranks, so every rank has the same loss. Targets and weights play no part: a view's own argmax
    decides, however unsure it is.
    """

    def __call__(self, logits: Mapping[str, Tensor], targets: Targets, weights: Tensor, videos: Tensor) -> Tensor:
        """NT-Xent of the two views' class averages."""
        teacher, student = (gather_with_grad(view) for view in self._logits(logits))
        members = [one_hot(view.argmax(dim=1), view.shape[1]).to(view.dtype) for view in (teacher, student)]
        common = (members[0].sum(dim=0) > 0) & (members[1].sum(dim=0) > 0)
        if common.sum() < 2:
            return (student * 0).sum()  # 0, and still a loss that can be propagated back
        averages = [
            (own / own.sum(dim=0).clamp_min(1)).T[common] @ self._compared(view)
            for own, view in zip(members, (teacher, student), strict=True)
        ]
        # The groups are already everyone's: gathering them again, as nt_xent does, would make each its own negative.
        directions = normalize(torch.cat(averages), dim=1)
        count = len(averages[0])
        own = torch.eye(2 * count, dtype=torch.bool, device=directions.device)
        similarities = (directions @ directions.T / self.temperature).masked_fill(own, -torch.inf)
        positives = torch.arange(2 * count, device=directions.device).roll(count)
        return cross_entropy(similarities, positives)
