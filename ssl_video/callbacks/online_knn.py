"""How well neighbours tell classes while a run goes on: the nearest labelled videos vote for others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.callbacks.each_step import EachStep
from ssl_video.data.batch import ClipBatch
from ssl_video.metrics.classification import topk_hits
from ssl_video.metrics.knn import knn_scores
from ssl_video.utils.distributed import gather, gather_objects, rank, world_size
from ssl_video.utils.errors import InputError


class LabelledVideos(Protocol):
    """A labelled side set, seen through clips as an evaluation sees them.

    Attributes:
        bank: rows of the videos that vote.
        queries: rows of those asked; none of them is in the bank.
        num_classes: of the labels.
    """

    bank: NDArray[np.int64]
    queries: NDArray[np.int64]
    num_classes: int

    def batches(self, rows: NDArray[np.int64]) -> Iterable[ClipBatch]:
        """Each of these rows once, in order; unreadable ones are left out."""
        ...


class OnlineKNN(EachStep):
    """``val/knn_top1`` every few steps or epochs, beside ``val/knn_top1_random``, that of the untrained network.

    The backbone is asked in eval mode and without gradients; modes, buffers and random states are left as they were, so
    that a run with it has the same weights as one without. Each process encodes its share of the videos.

    Args:
        videos: bank and queries.
        make_random: builds the backbone with random weights.
        every_epochs: epochs between two measurements; a share of one is allowed.
        every_steps: optimizer steps instead. The last step is always measured.
        k: videos that vote, at most as many as a class has in the bank in the mean.
        temperature: of the votes' weights exp(cosine / temperature).
    """

    def __init__(
        self,
        *,
        videos: LabelledVideos,
        make_random: Callable[[], Backbone],
        every_epochs: float = 5.0,
        every_steps: int | None = None,
        k: int = 20,
        temperature: float = 0.07,
    ) -> None:
        if every_epochs <= 0 or (every_steps is not None and every_steps < 1):
            raise InputError(f"every_epochs={every_epochs} must be above 0, and every_steps={every_steps} at least 1.")
        if k < 1 or temperature <= 0:
            raise InputError(f"k={k} must be at least 1, and temperature={temperature} above 0.")
        self.videos = videos
        self.make_random = make_random
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.k = k
        self.temperature = temperature
        self.random_top1: float | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Asks the untrained network, once for a run."""
        super().on_train_start(trainer, pl_module)
        if self.random_top1 is None:
            with isolate_rng():
                self.random_top1 = self._top1(self.make_random().to(trainer.strategy.root_device))

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, step: int) -> None:
        """Asks the network where it is time."""
        every = self.every_steps or max(1, round(self.every_epochs * int(str(pl_module.steps_per_epoch))))
        if step % every and step != pl_module.total_steps:
            return
        backbone: Any = pl_module.backbone
        with isolate_rng():
            top1 = self._top1(backbone)
        shown: dict[str, Any] = trainer.callback_metrics
        shown |= {"val/knn_top1": top1, "val/knn_top1_random": self.random_top1}
        if trainer.is_global_zero:
            told = f"step {step}: neighbours name {top1:.1%} of {len(self.videos.queries)} videos rightly"
            print(f"{told}; those of the untrained network {self.random_top1:.1%}", file=sys.stderr, flush=True)

    def _top1(self, backbone: Backbone) -> float:
        """Of one network, the same on all processes."""
        with evaluating(backbone):
            bank, bank_labels = self._encode(backbone, self.videos.bank)
            queries, labels = self._encode(backbone, self.videos.queries)
        top1 = 0.0
        if rank() == 0:
            per_class = max(1, len(bank) // len(bank_labels.unique()))
            scores = knn_scores(
                queries,
                bank,
                bank_labels,
                num_classes=self.videos.num_classes,
                k=min(self.k, per_class, len(bank)),
                temperature=self.temperature,
            )
            hits = topk_hits(scores.masked_fill(scores == 0, -torch.inf), labels, k=1)
            top1 = float(hits.double().mean())
        return gather_objects(top1)[0]

    def _encode(self, backbone: Backbone, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Features ``[N, D]`` of all processes' videos, the mean over the clips of each, and labels ``[N]``."""
        weight = next(backbone.parameters())
        features: list[Tensor] = [weight.new_empty(0, backbone.feature_dim, dtype=torch.float32)]
        labels = [torch.empty(0, dtype=torch.int64, device=weight.device)]
        for batch in self.videos.batches(np.array_split(rows, world_size())[rank()]):
            if not len(batch):
                continue
            clips = batch.clips.to(weight.device, non_blocking=True)
            own = backbone(clips.flatten(0, 1).to(weight.dtype)).float().unflatten(0, clips.shape[:2])
            features.append(own.mean(dim=1))
            labels.append(batch.labels.to(weight.device))
        return gather(torch.cat(features)), gather(torch.cat(labels))

    def state_dict(self) -> dict[str, Any]:
        """What the untrained network reached."""
        return {"random_top1": self.random_top1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Need not be asked again."""
        self.random_top1 = state_dict["random_top1"]


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Eval mode without gradients, uncompiled; each part's own mode comes back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        # Clips of another number would be compiled for, and training then run by what fits both.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for part, training in modes:
            part.training = training
