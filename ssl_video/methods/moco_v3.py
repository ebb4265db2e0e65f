"""MoCo v3 on two clips of a video: a predictor, a momentum copy, and the batch itself in place of a queue."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.losses.in_batch_info_nce import in_batch_info_nce
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.modules.momentum_encoder import MomentumEncoder
from ssl_video.modules.projector import Projector
from ssl_video.modules.sync_batch_norm import convert
from ssl_video.utils.collapse import embedding_std
from ssl_video.utils.errors import InputError


class MoCoV3(SSLMethod[ClipBatch]):
    """Momentum contrast without a queue: each clip tells the other one's key among the keys of the batch.

    The predictor stands on the query side only. The key encoder is a momentum copy of backbone and projector; it moves
    before the keys are made.

    Under gradient accumulation the negatives are those of each batch, not of all that make a step.

    Source: Chen et al., "An Empirical Study of Training Self-Supervised Vision Transformers", ICCV 2021, and its
    released code. There is no paper of its video form, two clips in place of two crops: this recipe is ours. VideoMAE
    (Tong et al., NeurIPS 2022) reports such a baseline.

    Differs from the reference: clips in place of crops; projector and predictor start as Xavier uniform; other segments
    of the same video are no negatives. A frozen patch embedding is an argument of the backbone, where it has one.

    Args:
        hidden_features: width of the hidden layers of projector and predictor.
        embedding_dim: D of the embedding.
        projector_layers: linear layers of the projector, no biases; 3 for a ViT, 2 for a ResNet.
        predictor_layers: linear layers of the predictor, no biases.
        predictor_batch_norm: ``all`` for a ViT, ``hidden`` (none on the output) for a ResNet. The projector has it
            after every layer.
        temperature: of the softmax over similarities; 0.2 for a ViT, 1 for a ResNet.
        momentum: of the key encoder at the start.
        momentum_schedule: ``cosine`` rises to 1 over the run, ``constant`` stays.
        sync_batch_norm: batch statistics of all ranks together.
    """

    min_batch_size = 2
    compares_videos = True
    compiles_whole = False

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        seed: int = 0,
        hidden_features: int = 4096,
        embedding_dim: int = 256,
        projector_layers: int = 3,
        predictor_layers: int = 2,
        predictor_batch_norm: Literal["hidden", "all"] = "all",
        temperature: float = 0.2,
        momentum: float = 0.99,
        momentum_schedule: Literal["cosine", "constant"] = "cosine",
        sync_batch_norm: bool = True,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        self.projector = Projector(
            backbone.feature_dim,
            hidden_features=hidden_features,
            out_features=embedding_dim,
            num_layers=projector_layers,
            batch_norm="all",
            bias="none",
        )
        self.predictor = Projector(
            embedding_dim,
            hidden_features=hidden_features,
            out_features=embedding_dim,
            num_layers=predictor_layers,
            batch_norm=predictor_batch_norm,
            bias="none",
        )
        self.temperature = temperature
        if sync_batch_norm:
            convert(self)  # before the key encoder is copied
        self.key_encoder = MomentumEncoder(self.query_encoder, momentum=momentum, schedule=momentum_schedule)

    @property
    def query_encoder(self) -> nn.Sequential:
        """Backbone and projector, the part that the key encoder follows."""
        return nn.Sequential(self.backbone, self.projector)

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """MoCo v3 compares exactly two clips."""
        if num_views != 2:
            raise InputError(f"sampler.num_views={num_views}; MoCo v3 compares 2 clips of a video; set it to 2.")

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """InfoNCE of each clip's query against the other clip's key, added up."""
        views = batch.clips.unbind(1)
        projections = [self.query_encoder(clips) for clips in views]
        self.key_encoder.step(self.query_encoder, step=self.global_step, total_steps=self.total_steps)
        keys = [self.key_encoder(clips) for clips in views]
        self.observed["embedding_std"] = embedding_std(torch.cat(projections))
        losses = [
            in_batch_info_nce(self.predictor(projection), key, temperature=self.temperature, videos=batch.videos)
            for projection, key in zip(projections, reversed(keys), strict=True)
        ]
        return {"info_nce": torch.stack(losses).sum()}
