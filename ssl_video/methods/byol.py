"""BYOL in its video form: each clip predicts what a slow copy of the network makes of the video's other clips."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.losses.neg_cosine import neg_cosine
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.modules.momentum_encoder import MomentumEncoder
from ssl_video.modules.projector import Projector
from ssl_video.modules.sync_batch_norm import convert
from ssl_video.utils.collapse import embedding_std
from ssl_video.utils.errors import InputError


class BYOL(SSLMethod[ClipBatch]):
    """Bootstrap your own latent over ρ clips of a video: no negatives.

    The predictor stands on the online side only and reads the projection before it is brought to unit length. The
    target network is a momentum copy of backbone and projector; it moves before the targets are made. Nothing but
    predictor, batch norm and the slow target keep all clips from one embedding: watch ``train/embedding_std``.

    Source: Feichtenhofer et al., "A Large-Scale Study on Unsupervised Spatiotemporal Representation Learning", CVPR
    2021 (ρ-BYOL) and its released code; Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020.

    Differs from the reference: the loss is the mean over the ρ predicting clips, as the paper writes it (the released
    code sums their gradients, so that its learning rate grows with ρ), each over its ρ − 1 targets a mean, as in the
    code (the paper adds them up; the same for two clips).

    Args:
        hidden_features: width of the hidden layers of projector and predictor.
        embedding_dim: D of projection and prediction.
        projector_layers: linear layers of the projector.
        predictor_layers: linear layers of the predictor; 0 leaves it out, to see what then collapses.
        batch_norm: of projector and predictor; ``hidden`` in the paper.
        momentum: of the target network at the start.
        momentum_schedule: ``cosine`` rises to 1 over the run, ``constant`` stays.
        sync_batch_norm: batch statistics of all ranks together.
    """

    min_batch_size = 2
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
        projector_layers: int = 2,
        predictor_layers: int = 2,
        batch_norm: Literal["none", "hidden", "all"] = "hidden",
        momentum: float = 0.996,
        momentum_schedule: Literal["cosine", "constant"] = "cosine",
        sync_batch_norm: bool = True,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        self.projector = Projector(
            backbone.feature_dim,
            hidden_features=hidden_features,
            out_features=embedding_dim,
            num_layers=projector_layers,
            batch_norm=batch_norm,
        )
        self.predictor: nn.Module = nn.Identity()
        if predictor_layers > 0:
            self.predictor = Projector(
                embedding_dim,
                hidden_features=hidden_features,
                out_features=embedding_dim,
                num_layers=predictor_layers,
                batch_norm=batch_norm,
            )
        if sync_batch_norm:
            convert(self)  # before the target network is copied
        self.target_encoder = MomentumEncoder(self.online_encoder, momentum=momentum, schedule=momentum_schedule)

    @property
    def online_encoder(self) -> nn.Sequential:
        """Backbone and projector, the part that the target network follows."""
        return nn.Sequential(self.backbone, self.projector)

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """BYOL predicts other clips of the same video."""
        if num_views < 2:
            raise InputError(f"sampler.num_views={num_views}; BYOL needs 2 clips or more of a video; raise it.")

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """−2·cos between each clip's prediction and every other clip's target, averaged."""
        views = batch.clips.unbind(1)
        projections = [self.online_encoder(clips) for clips in views]
        self.target_encoder.step(self.online_encoder, step=self.global_step, total_steps=self.total_steps)
        targets = [self.target_encoder(clips) for clips in views]
        self.observed["embedding_std"] = embedding_std(torch.cat(projections))
        predictions = [self.predictor(projection) for projection in projections]
        losses = [
            neg_cosine(prediction, target)
            for view, prediction in enumerate(predictions)
            for other, target in enumerate(targets)
            if other != view
        ]
        return {"neg_cosine": torch.stack(losses).mean()}
