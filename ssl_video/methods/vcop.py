"""Clip order prediction: clips of a video are shuffled, and their order is to be told."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import cross_entropy

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.modules.pairwise_head import PairwiseHead
from ssl_video.pretext.permutations import draw_permutations, present
from ssl_video.utils.errors import InputError


class VCOP(SSLMethod[ClipBatch]):
    """Video clip order prediction: which of the n! orders are the clips in?

    Source: Xu et al., "Self-supervised Spatiotemporal Learning via Video Clip Order Prediction", CVPR 2019, and its
    released code (permutations in lexicographic order, no merging of an order with its reverse).

    Differs from the reference: all clips of a batch go through the backbone in one forward pass (the released code
    makes one pass per position, so its batch norm sees one position at a time; a joint pass leaks nothing, as
    permuting clips leaves the statistics of the whole batch unchanged).

    Args:
        num_clips: clips per video, 2 to 5.
        hidden_features: width of the layer shared by all pairs of clips.
        dropout: before the classifier.
    """

    decays_all = True  # the released code hands all parameters to SGD alike

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        seed: int = 0,
        num_clips: int = 3,
        hidden_features: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        if not 2 <= num_clips <= 5:
            raise InputError(f"method.num_clips={num_clips} must be 2 to 5; 6 clips have 720 orders.")
        self.num_clips = num_clips
        self.head = PairwiseHead(
            backbone.feature_dim,
            num_clips=num_clips,
            hidden_features=hidden_features,
            num_classes=math.factorial(num_clips),
            dropout=dropout,
        )

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """The sampler must give as many clips as the head orders."""
        if num_views != self.num_clips:
            raise InputError(
                f"sampler.num_views={num_views}, but method.num_clips={self.num_clips} clips are to be ordered; "
                f"set sampler.num_views={self.num_clips}."
            )

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Cross-entropy of the order; the accuracy is logged beside it."""
        logits, labels = self.questions(batch)
        self.observed["accuracy"] = (logits.argmax(dim=1) == labels).float().mean()
        return {"order": cross_entropy(logits, labels)}

    def questions(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Draws an order for each video: logits ``[B, V!]`` and labels ``[B]``."""
        permutations, labels = draw_permutations(len(batch), self.num_clips, device=batch.clips.device)
        return self.predict(present(batch.clips, permutations)), labels

    def predict(self, presented: Tensor) -> Tensor:
        """Shuffled clips ``[B, V, C, T, H, W]`` to logits of their order ``[B, V!]``."""
        features = self.backbone(presented.flatten(0, 1)).unflatten(0, presented.shape[:2])
        logits: Tensor = self.head(features)
        return logits
