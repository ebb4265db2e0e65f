"""CVRL: two clips of a video agree, against all other clips of the batch."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.losses.nt_xent import nt_xent
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.modules.projector import Projector
from ssl_video.modules.sync_batch_norm import convert
from ssl_video.utils.collapse import embedding_std
from ssl_video.utils.errors import InputError


class CVRL(SSLMethod[ClipBatch]):
    """Spatiotemporal contrastive learning: SimCLR on two clips whose distance in time is drawn from a falling density.

    What is its own lies in its data: the sampler ``IntervalClips`` and an augmentation that is the same for all frames
    of a clip. Both clips go through the network in one pass, with batch statistics over all ranks.

    Under gradient accumulation the negatives are those of each batch, not of all that make a step.

    Source: Qian et al., "Spatiotemporal Contrastive Video Representation Learning", CVPR 2021, and its released code.

    Differs from the reference: the loss is a mean over ranks (the released code adds it up over replicas, so that its
    learning rate belongs to their number); weight decay is the optimizer's, not an L2 term of the loss; the projector
    starts as Xavier uniform; other segments of the same video are no negatives.

    Args:
        hidden_features: width of the projector's hidden layers.
        embedding_dim: D of the embedding.
        num_layers: linear layers of the projector, all with a bias; three hidden ones and the last in the paper.
        batch_norm: of the projector; ``hidden`` in the paper.
        batch_norm_momentum: of the projector's batch norm; TensorFlow's 0.997 is 0.003 here.
        temperature: of the softmax over similarities.
        total: ``sum`` adds the mean losses of the two views, as the released code does; ``mean`` averages them, as in
            the paper.
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
        num_layers: int = 4,
        batch_norm: Literal["none", "hidden", "all"] = "hidden",
        batch_norm_momentum: float = 0.003,
        temperature: float = 0.1,
        total: Literal["sum", "mean"] = "sum",
        sync_batch_norm: bool = True,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        if total not in ("sum", "mean"):
            raise InputError(f"method.total={total!r} is not known; use 'sum' or 'mean'.")
        self.projector = Projector(
            backbone.feature_dim,
            hidden_features=hidden_features,
            out_features=embedding_dim,
            num_layers=num_layers,
            batch_norm=batch_norm,
            bias="all",
            batch_norm_momentum=batch_norm_momentum,
        )
        self.temperature = temperature
        self.weight = 2.0 if total == "sum" else 1.0
        if sync_batch_norm:
            convert(self)

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """CVRL compares exactly two clips."""
        if num_views != 2:
            raise InputError(f"sampler.num_views={num_views}; CVRL compares 2 clips of a video; set it to 2.")

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """NT-Xent between the two clips."""
        embeddings = self.projector(self.backbone(batch.clips.transpose(0, 1).flatten(0, 1)))
        self.observed["embedding_std"] = embedding_std(embeddings)
        first, second = embeddings.chunk(2)
        loss = nt_xent(first, second, temperature=self.temperature, videos=batch.videos)
        return {"nt_xent": self.weight * loss}
