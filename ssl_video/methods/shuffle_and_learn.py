"""Shuffle and learn: is the middle frame of three where it belongs in time?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import binary_auroc

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.pretext.tuples import NUM_SOURCE_FRAMES, draw_tuples
from ssl_video.utils.errors import InputError


class ShuffleAndLearn(SSLMethod[ClipBatch]):
    """Tuple verification: three frames are in the order of time, or the middle one is not from between the others.

    The sampler gives five frames of a video in time order; a tuple that is right and one that is wrong begin and end
    with the same two. The accuracy is not logged: with three wrong tuples in four it says little. Balanced accuracy and
    the area under the ROC curve are, of batches that hold both kinds.

    Source: Misra et al., "Shuffle and Learn: Unsupervised Learning using Temporal Order Verification", ECCV 2016, and
    its released code.

    The head adds up what it sees in each of the three frames and cannot compare two of them, as the released one: it
    answers where a frame's own look tells how early it is among the five.

    Differs from the reference: the choice of windows and the rejection of similar frames are ours where the paper
    gives no number (see ``FiveFrames``); each tuple is wrong with a probability, where the released file of tuples has
    a fixed share; so a batch's statistics tell nothing of a label. Tuples are drawn anew in every epoch and visited in
    random order, the released code reads its file in order.

    Args:
        negative_share: probability of a tuple in wrong order.
        tuples_per_video: tuples made of the five frames of a video in one step; they may be equal, and share
            batch statistics.
    """

    encodes_single_frames = True
    compiles_whole = False

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        seed: int = 0,
        negative_share: float = 0.75,
        tuples_per_video: int = 1,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        if not 0 < negative_share < 1:
            raise InputError(f"method.negative_share={negative_share} must lie between 0 and 1; both kinds are needed.")
        if tuples_per_video < 1:
            raise InputError(f"method.tuples_per_video={tuples_per_video} must be at least 1.")
        self.negative_share = negative_share
        self.tuples_per_video = tuples_per_video
        self.head = nn.Linear(3 * backbone.feature_dim, 2)
        # "xavier" in Caffe: uniform within sqrt(3 / inputs), whatever the number of outputs.
        nn.init.kaiming_uniform_(self.head.weight, nonlinearity="linear")
        nn.init.zeros_(self.head.bias)

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """Tuples are made of five frames in one clip."""
        if num_views != 1:
            raise InputError(
                f"sampler.num_views={num_views}, but tuples are made of one clip; set sampler.num_views=1, for "
                "instance by sampler=five_frames_small."
            )
        if num_frames != NUM_SOURCE_FRAMES:
            raise InputError(
                f"sampler.num_frames={num_frames}, but tuples are made of {NUM_SOURCE_FRAMES} frames; set "
                f"sampler.num_frames={NUM_SOURCE_FRAMES}, for instance by sampler=five_frames_small."
            )

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Cross-entropy of right and wrong order."""
        logits, labels = self.questions(batch)
        self._observe(logits.detach(), labels)
        return {"verification": cross_entropy(logits, labels)}

    def questions(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Draws the tuples: logits ``[Q, 2]`` and labels ``[Q]``, 1 = right order; Q = B x ``tuples_per_video``."""
        videos = torch.arange(len(batch), device=batch.clips.device).repeat_interleave(self.tuples_per_video)
        places, labels = draw_tuples(len(videos), negative_share=self.negative_share, device=batch.clips.device)
        frames = batch.clips[:, 0].transpose(1, 2)  # [B,5,C,H,W]
        return self.predict(frames[videos.unsqueeze(1), places]), labels

    def predict(self, presented: Tensor) -> Tensor:
        """Presented tuples ``[Q, 3, C, H, W]`` to logits ``[Q, 2]``."""
        features = self.backbone(presented.flatten(0, 1).unsqueeze(2)).unflatten(0, presented.shape[:2])
        logits: Tensor = self.head(features.flatten(1))
        return logits

    def _observe(self, logits: Tensor, labels: Tensor) -> None:
        if labels.min() == labels.max():
            return  # of one kind only there is neither
        right = logits.argmax(dim=1) == labels
        shares = [right[labels == kind].float().mean() for kind in (0, 1)]
        self.observed["balanced_accuracy"] = torch.stack(shares).mean()
        self.observed["auc"] = binary_auroc(logits.softmax(dim=1)[:, 1], labels)
