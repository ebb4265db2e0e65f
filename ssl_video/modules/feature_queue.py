"""The queue of past keys that gives MoCo many negatives with a small batch."""

import math

import torch
from torch import Tensor, nn


class FeatureQueue(nn.Module):
    """A ring of the last ``K`` features: the oldest is overwritten first.

    It starts with uniform noise in ±sqrt(3/D), of norm near 1, as in the released video MoCo; ``is_full`` tells when
    the last of the noise is gone. Push what *all* ranks made, ``queue.push(gather(keys))``, after the loss has
    used the old content: then the queue is equal on all ranks and holds no positive of the present batch.

    Args:
        length: number ``K`` of features held.
        dim: size ``D`` of a feature.
    """

    features: Tensor
    owners: Tensor
    pointer: Tensor
    pushed: Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        if length < 1 or dim < 1:
            raise ValueError(f"length={length} and dim={dim} must be at least 1; MoCo uses 65536 and 128.")
        bound = math.sqrt(3.0 / dim)
        self.register_buffer("features", torch.empty(length, dim).uniform_(-bound, bound))
        self.register_buffer(
            "owners", torch.full((length,), -1)
        )  # number of the video each row came from, -1 for noise
        self.register_buffer("pointer", torch.tensor(0))  # the row that is written next
        self.register_buffer("pushed", torch.tensor(0))  # rows pushed since the start
        self._seen_step = -1
        self._seen = (self.features, self.owners)
        self.register_load_state_dict_post_hook(_forget_seen)  # type: ignore[no-untyped-call]

    @property
    def is_full(self) -> bool:
        """Whether every row holds a pushed feature."""
        return int(self.pushed) >= len(self.features)

    def at_step(self, step: int) -> tuple[Tensor, Tensor]:
        """Features ``[K, D]`` and owners ``[K]`` as they were when an optimizer step began.

        Under gradient accumulation several batches have the same step, and what the first of them pushed is not yet a
        negative of the others: their summed gradient is that of one large batch. It costs nothing, as ``push`` makes
        new tensors.
        """
        if self._seen_step != step:
            self._seen_step, self._seen = step, (self.features, self.owners)
        return self._seen

    @torch.no_grad()
    def push(self, features: Tensor, owners: Tensor) -> None:
        """Write ``[n, D]`` and their videos' numbers ``[n]`` in order, for any ``n``; the last ``K`` stay.

        A row with NaN or infinity is left out, and the old one stays in its place: it would spoil every later loss.
        """
        length, dim = self.features.shape
        if features.ndim != 2 or features.shape[1] != dim or owners.shape != features.shape[:1]:
            raise ValueError(
                f"Features of shape {list(features.shape)} were pushed with owners {list(owners.shape)}; the queue "
                f"takes [n, {dim}] and [n]."
            )
        newest = features[-length:].to(self.features.dtype)
        skipped = len(features) - len(newest)
        rows = (self.pointer + skipped + torch.arange(len(newest), device=features.device)) % length
        is_finite = newest.isfinite().all(dim=1)
        newest = torch.where(is_finite[:, None], newest, self.features[rows])
        # A new tensor, not a write in place: backward still needs the content that the loss of this step has seen.
        self.features = self.features.index_copy(0, rows, newest)
        self.owners = self.owners.index_copy(0, rows, torch.where(is_finite, owners[-length:], self.owners[rows]))
        self.pointer = (self.pointer + len(features)) % length
        self.pushed = self.pushed + len(features)


def _forget_seen(module: nn.Module, keys: object) -> None:
    """After a state was loaded what the step before it saw is another queue's."""
    assert isinstance(module, FeatureQueue)
    module._seen_step, module._seen = -1, (module.features, module.owners)
