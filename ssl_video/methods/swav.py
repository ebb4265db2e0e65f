"""SwAV in its video form: from one clip, tell to which prototypes the video's other clips are assigned."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.losses.swapped_prediction import swapped_prediction
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.modules.projector import Projector
from ssl_video.modules.prototypes import Prototypes
from ssl_video.modules.sync_batch_norm import convert
from ssl_video.utils.collapse import embedding_std
from ssl_video.utils.errors import InputError


class SwAV(SSLMethod[ClipBatch]):
    """Swapped prediction of online cluster codes over ρ clips of a video.

    Codes are made of two clips, balanced over the batch of all ranks by three Sinkhorn iterations, and predicted from
    all other clips. Prototypes have unit length and stay as they are in the first epoch. Each view is its own forward
    pass, as in the released code.

    Under gradient accumulation the codes are balanced over each batch, not over all that make a step.

    Source: Feichtenhofer et al., "A Large-Scale Study on Unsupervised Spatiotemporal Representation Learning", CVPR
    2021 (ρ-SwAV) and its released code; Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments", NeurIPS 2020.

    Differs from the reference: codes are balanced over all ranks always (the released video code does so on several
    machines only); no queue of past embeddings (off in the released video configuration too).

    Args:
        hidden_features: width of the projector's hidden layers.
        embedding_dim: D of the embedding.
        num_layers: linear layers of the projector.
        batch_norm: of the projector; ``hidden`` in the paper.
        num_prototypes: K.
        temperature: of the predictions.
        epsilon: of the codes; the smaller, the nearer each is to one prototype alone.
        sinkhorn_iterations: that balance the codes.
        num_code_views: clips that are assigned to prototypes, the first of the sampler's (random) order.
        frozen_prototype_epochs: for so many epochs the prototypes don't learn.
        sync_batch_norm: batch statistics of all ranks together.
    """

    min_batch_size = 2
    compares_videos = True

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
        num_prototypes: int = 1000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        sinkhorn_iterations: int = 3,
        num_code_views: int = 2,
        frozen_prototype_epochs: float = 1.0,
        sync_batch_norm: bool = True,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        self.projector = Projector(
            backbone.feature_dim,
            hidden_features=hidden_features,
            out_features=embedding_dim,
            num_layers=num_layers,
            batch_norm=batch_norm,
        )
        self.prototypes = Prototypes(embedding_dim, num_prototypes)
        self.temperature = temperature
        self.epsilon = epsilon
        self.sinkhorn_iterations = sinkhorn_iterations
        self.num_code_views = num_code_views
        self.frozen_prototype_epochs = frozen_prototype_epochs
        if sync_batch_norm:
            convert(self)

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """SwAV predicts one clip's code from another."""
        needed = max(2, self.num_code_views)
        if num_views < needed:
            raise InputError(
                f"sampler.num_views={num_views}; SwAV needs {needed} clips or more of a video with "
                f"method.num_code_views={self.num_code_views}; raise the one, or lower the other."
            )

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Cross-entropy of the predicted with the assigned prototypes."""
        self.prototypes.renormalise()
        embeddings = [self.projector(self.backbone(clips)) for clips in batch.clips.unbind(1)]
        self.observed["embedding_std"] = embedding_std(torch.cat(embeddings))
        loss = swapped_prediction(
            [self.prototypes(embedding) for embedding in embeddings],
            temperature=self.temperature,
            epsilon=self.epsilon,
            num_iterations=self.sinkhorn_iterations,
            num_code_views=self.num_code_views,
        )
        return {"swapped_prediction": loss}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leaves the prototypes out of the step in the first epoch: neither gradient nor weight decay moves them."""
        if self.global_step < self.frozen_prototype_epochs * self.steps_per_epoch:
            self.prototypes.weight.grad = None
