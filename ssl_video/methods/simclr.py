"""SimCLR in its video form: clips of a video agree, against all other videos' clips of the batch."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Literal

import torch
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.losses.nt_xent import nt_xent
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.modules.projector import Projector
from ssl_video.modules.sync_batch_norm import convert
from ssl_video.utils.collapse import embedding_std
from ssl_video.utils.errors import InputError


class SimCLR(SSLMethod[ClipBatch]):
    """NT-Xent over ρ clips of a video, taken in pairs.

    Each view is its own forward pass, as in the released code: batch statistics never mix two clips of a video.

    Under gradient accumulation the negatives are those of each batch, not of all that make a step.

    Source: Feichtenhofer et al., "A Large-Scale Study on Unsupervised Spatiotemporal Representation Learning", CVPR
    2021 (ρ-SimCLR) and its released code; Chen et al., "A Simple Framework for Contrastive Learning of Visual
    Representations", ICML 2020.

    Differs from the reference: the loss is the mean over pairs, as the paper averages (the released code sums the
    gradients of its pairs, so that its learning rate grows with ρ); a pair's negatives are clips of its two views only,
    as in the released code, but of all ranks; other segments of the same video are no negatives.

    Args:
        hidden_features: width of the projector's hidden layers.
        embedding_dim: D of the embedding.
        num_layers: linear layers of the projector.
        batch_norm: of the projector; ``hidden`` in the paper, ``none`` in the released configuration.
        temperature: of the softmax over similarities.
        pairs: with more than two clips, ``chain`` compares each with the next in the sampler's (random) order, as the
            released code does; ``all`` takes every pair. The same for two clips.
        sync_batch_norm: batch statistics of all ranks together.
    """

    min_batch_size = 2
    compares_videos = True
    static_graph = True

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        seed: int = 0,
        hidden_features: int = 2048,
        embedding_dim: int = 128,
        num_layers: int = 3,
        batch_norm: Literal["none", "hidden", "all"] = "hidden",
        temperature: float = 0.1,
        pairs: Literal["chain", "all"] = "chain",
        sync_batch_norm: bool = True,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        if pairs not in ("chain", "all"):
            raise InputError(f"method.pairs={pairs!r} is not known; use 'chain' or 'all'.")
        self.projector = Projector(
            backbone.feature_dim,
            hidden_features=hidden_features,
            out_features=embedding_dim,
            num_layers=num_layers,
            batch_norm=batch_norm,
        )
        self.temperature = temperature
        self.pairs = pairs
        if sync_batch_norm:
            convert(self)

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """SimCLR compares at least two clips."""
        if num_views < 2:
            raise InputError(f"sampler.num_views={num_views}; SimCLR compares 2 clips or more of a video; raise it.")

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """NT-Xent of each pair of clips, averaged."""
        embeddings = [self.projector(self.backbone(clips)) for clips in batch.clips.unbind(1)]
        self.observed["embedding_std"] = embedding_std(torch.cat(embeddings))
        pairs = pairwise(embeddings) if self.pairs == "chain" else combinations(embeddings, 2)
        losses = [nt_xent(a, b, temperature=self.temperature, videos=batch.videos) for a, b in pairs]
        return {"nt_xent": torch.stack(losses).mean()}
