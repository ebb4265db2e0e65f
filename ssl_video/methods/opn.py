"""OPN: four frames of a video are shuffled, and their order is to be told."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.modules.pairwise_sorting_head import PairwiseSortingHead
from ssl_video.pretext.permutations import Merge, draw_orders, order_classes, present
from ssl_video.utils.errors import InputError


class OPN(SSLMethod[ClipBatch]):
    """Order prediction network: sort four frames, up to a reversal.

    Source: Lee et al., "Unsupervised Representation Learning by Sorting Sequences", ICCV 2017, and its released code,
    whose table of twelve classes is kept. Its classes merge an order with its presentation from back to front. That is
    not the reversal of the video, which is the motive given: a motion that looks the same backwards can be sorted right
    2 times in 3 at best. ``merge="time"`` merges what such a motion cannot tell apart.

    Differs from the reference: frames of a tuple are drawn anew in every epoch, where the released code reads a list of
    tuples, whose gaps and choice are not known (see ``MovingFrames``); biases do not decay.

    Args:
        merge: which orders are one class: ``position`` (released code), ``time`` or ``none`` (24 classes).
        hidden_features: size of the layer shared by all pairs of frames.
        dropout: of the pairs' representation.
        gaussian_init: start the head as the released code does.
        batch_norm_momentum: of the head's running statistics; 0.001 is Caffe's and needs thousands of steps.
    """

    encodes_single_frames = True
    min_batch_size = 2
    classes: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        seed: int = 0,
        merge: Merge = "position",
        hidden_features: int = 512,
        dropout: float = 0.5,
        gaussian_init: bool = True,
        batch_norm_momentum: float = 0.001,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        self.register_buffer("classes", order_classes(merge), persistent=False)
        self.head = PairwiseSortingHead(
            backbone.feature_dim,
            num_classes=len(self.classes),
            hidden_features=hidden_features,
            dropout=dropout,
            gaussian_init=gaussian_init,
            batch_norm_momentum=batch_norm_momentum,
        )

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """Four frames in one clip are sorted."""
        if num_views != 1:
            raise InputError(
                f"sampler.num_views={num_views}, but the frames of one clip are sorted; set sampler.num_views=1, for "
                "instance by sampler=moving_frames_small."
            )
        if num_frames != 4:
            raise InputError(
                f"sampler.num_frames={num_frames}, but 4 frames are sorted; set sampler.num_frames=4, for instance by "
                "sampler=moving_frames_small."
            )

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Cross-entropy of the order; the accuracy is logged beside it."""
        logits, labels = self.questions(batch)
        self.observed["accuracy"] = (logits.argmax(dim=1) == labels).float().mean()
        return {"order": cross_entropy(logits, labels)}

    def questions(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Draws an order for each video: logits ``[B, classes]`` and labels ``[B]``."""
        orders, labels = draw_orders(len(batch), self.classes)
        frames = batch.clips[:, 0].transpose(1, 2)  # [B,4,C,H,W]
        return self.predict(present(frames, orders)), labels

    def predict(self, presented: Tensor) -> Tensor:
        """Shuffled frames ``[B, 4, C, H, W]`` to logits of their order ``[B, classes]``."""
        features = self.backbone(presented.flatten(0, 1).unsqueeze(2)).unflatten(0, presented.shape[:2])
        logits: Tensor = self.head(features)
        return logits
