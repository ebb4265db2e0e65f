"""Supervised classification: what the labels alone teach, the reference row of every table."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.utils.distributed import gather
from ssl_video.utils.errors import InputError


class Supervised(SSLMethod[ClipBatch]):
    """Classify the clips of labelled videos.

    Not a way of learning without labels: a table shows it beside those, with the same backbone, steps and batch.

    Source: standard practice; no paper.

    Differs from the reference: there is none.

    Args:
        num_classes: C; the data's.
        dropout: before the classifier.
    """

    compiles_whole = False

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        num_classes: int,
        seed: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        if num_classes < 2:
            raise InputError(
                f"method=supervised needs labels of 2 classes or more, the data have {num_classes}; give "
                "dataset.labels=FILE.csv, choose a column by dataset.label=NAME, or take a method without labels."
            )
        self.num_classes = num_classes
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(backbone.feature_dim, num_classes))

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """One clip of each video is classified."""
        if num_views != 1:
            raise InputError(f"sampler.num_views={num_views}, but one clip is classified; set sampler.num_views=1.")

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Cross-entropy over the videos that have a label; the accuracy is logged beside it."""
        logits: Tensor = self.head(self.backbone(batch.clips[:, 0]))
        labelled = batch.labels >= 0
        # Ranks may hold unequally many labels: with the mean count of all, the mean of their losses is that of one
        # process. The sum over none is 0, where a mean would be no number.
        count = gather(labelled.sum().unsqueeze(0)).float().mean()
        summed = cross_entropy(logits, batch.labels, ignore_index=-1, reduction="sum")
        loss = summed / count.clamp_min(torch.finfo(count.dtype).tiny)
        if labelled.any():
            self.observed["accuracy"] = (logits.argmax(dim=1) == batch.labels)[labelled].float().mean()
        return {"classification": loss}
