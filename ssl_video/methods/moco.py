"""MoCo in its video form: two or more clips of a video agree, against a queue of other videos' clips."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.losses.info_nce import info_nce_queue
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.modules.batch_shuffle import shuffle
from ssl_video.modules.feature_queue import FeatureQueue
from ssl_video.modules.momentum_encoder import MomentumEncoder
from ssl_video.modules.projector import Projector
from ssl_video.utils.distributed import gather
from ssl_video.utils.errors import InputError


class MoCo(SSLMethod[ClipBatch]):
    """Momentum contrast over ρ clips of a video.

    One step: encode the queries, move the key encoder, encode the keys with a shuffled batch (so that batch statistics
    don't give the match away), compare with the *old* queue, then enqueue the keys of all ranks. Shuffling changes a
    key's statistics only where several groups are normalised apart: on several devices, or on one by
    ``batch_norm_group_size``. Without either, a network can learn to match statistics instead of videos.

    Source: Feichtenhofer et al., CVPR 2021 (ρ-MoCo, equation 1) and its released code; He et al., CVPR 2020.

    Differs from the reference: keys are gathered over ranks before they are enqueued, as in image MoCo (the released
    video code enqueues one rank's); losses are averaged over the ρ queries, as the paper writes it (the released code
    sums their gradients, so that its learning rate grows with ρ); the queue may have any length; keys of the query's
    own video that are still in the queue are left out of its negatives (in Kinetics there are next to none, in a small
    data set they would be most of what it must be unlike).

    Args:
        hidden_features: width of the projector's hidden layers.
        embedding_dim: D of the embedding.
        num_layers: linear layers of the projector.
        batch_norm: of the projector; ``none`` in the paper, ``all`` leaves the start sooner in short runs.
        queue_length: K, keys kept.
        temperature: of the softmax over similarities.
        momentum: of the key encoder at the start.
        momentum_schedule: ``cosine`` rises to 1 over the run, ``constant`` stays.
        symmetric: every clip serves as query once; False takes the first as query and the others as keys.
        multi_positive: of several keys: mean of cross-entropies (released weights) or sum inside the logarithm (paper).
        shuffle_bn: shuffle the keys over all ranks before they are encoded.
        batch_norm_group_size: clips that are normalised together (8 on each GPU in the paper); None takes a device's
            batch as one group. A batch that is no multiple is split as evenly as it goes.
        fill_queue_first: no optimizer step until the queue holds keys only, no noise.
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
        hidden_features: int = 2048,
        embedding_dim: int = 128,
        num_layers: int = 3,
        batch_norm: Literal["none", "hidden", "all"] = "none",
        queue_length: int = 65536,
        temperature: float = 0.1,
        momentum: float = 0.994,
        momentum_schedule: Literal["cosine", "constant"] = "cosine",
        symmetric: bool = True,
        multi_positive: Literal["mean_of_ce", "sum_in_log"] = "mean_of_ce",
        shuffle_bn: bool = True,
        batch_norm_group_size: int | None = None,
        fill_queue_first: bool = False,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        self.projector = Projector(
            backbone.feature_dim,
            hidden_features=hidden_features,
            out_features=embedding_dim,
            num_layers=num_layers,
            batch_norm=batch_norm,
        )
        self.key_encoder = MomentumEncoder(self.query_encoder, momentum=momentum, schedule=momentum_schedule)
        self.queue = FeatureQueue(queue_length, embedding_dim)
        self.temperature = temperature
        self.symmetric, self.multi_positive = symmetric, multi_positive
        self.shuffle_bn = shuffle_bn
        self.batch_norm_group_size = batch_norm_group_size
        self.fill_queue_first = fill_queue_first

    @property
    def query_encoder(self) -> nn.Sequential:
        """Backbone and projector, the part that learns and that the key encoder follows."""
        return nn.Sequential(self.backbone, self.projector)

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """MoCo compares at least two clips."""
        if num_views < 2:
            raise InputError(f"sampler.num_views={num_views}; MoCo compares 2 clips or more of a video; raise it.")

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """InfoNCE of every query clip against the other clips' keys and the queue."""
        views = batch.clips.unbind(1)
        queries = [self._encode(self.query_encoder, clips) for clips in (views if self.symmetric else views[:1])]
        self.key_encoder.step(self.query_encoder, step=self.global_step, total_steps=self.total_steps)
        # Each view is its own forward pass, as in the released code: batch statistics never mix a query with its key.
        keys = [self._encode_keys(clips, view) for view, clips in enumerate(views)]
        # In a small data set the queue holds keys of the query's own video: they are no negatives.
        negatives, owners = self.queue.at_step(self.global_step)
        loss = torch.stack(
            [
                info_nce_queue(
                    query,
                    torch.stack([key for other, key in enumerate(keys) if other != view], dim=1),
                    negatives,
                    temperature=self.temperature,
                    multi_positive=self.multi_positive,
                    excluded=batch.videos[:, None] == owners,
                )
                for view, query in enumerate(queries)
            ]
        ).mean()
        enqueued = keys if self.symmetric else keys[1:]
        self.queue.push(gather(torch.cat(enqueued)), gather(batch.videos.repeat(len(enqueued))))
        return {"info_nce": loss}

    @torch.no_grad()
    def _encode_keys(self, clips: Tensor, view: int) -> Tensor:
        if not self.shuffle_bn:
            return self._encode(self.key_encoder, clips)
        shuffled, undo = shuffle(clips, seed=(self.seed * 1_000_003 + self.global_step) * 64 + view)
        return undo(self._encode(self.key_encoder, shuffled))

    def _encode(self, encoder: nn.Module, clips: Tensor) -> Tensor:
        """Unit embeddings, each group of clips normalised by its own batch statistics."""
        groups = math.ceil(len(clips) / (self.batch_norm_group_size or len(clips)))
        return normalize(torch.cat([encoder(part) for part in clips.tensor_split(groups)]), dim=1)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Steps, or only computes (so that keys are enqueued) while the queue still holds noise."""
        if self.fill_queue_first and not self.queue.is_full:
            optimizer_closure()
        else:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
