"""O3N: of several clips of a video one has its frames in the wrong order, and is to be found."""

from __future__ import annotations

from itertools import combinations
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import OptimizerFactory, SchedulerFactory, SSLMethod
from ssl_video.pretext.odd_one_out import draw_odd_ones
from ssl_video.utils.errors import InputError

Fusion = Literal["concat", "sum_diff", "abs_diff"]


class O3N(SSLMethod[ClipBatch]):
    """Odd-one-out: which of N + 1 clips of a video is out of order?

    Source: Fernando et al., "Self-Supervised Video Representation Learning With Odd-One-Out Networks", CVPR 2017. No
    code was released; the hidden layer is that of a reimplementation.

    Differs from the reference: ``abs_diff`` is ours; so is what is not known of the paper, which is the optimizer, the
    default fusion, and the start and norms of the network.

    Args:
        num_branches: clips in a question, N + 1.
        fusion: what the head sees of the branches' features v. ``concat``: all of them. ``sum_diff``: the sum of
            v_i - v_j over all j > i, which weights branch i with (number of branches - 1 - 2 i); of an odd number
            the middle one's weight is 0, so it must be even. ``abs_diff`` (ours): the absolute v_i - v_j of all pairs
            side by side; their sum would be the same whichever branch is odd.
        hidden_features: of the head's layer before the classifier.
        refuse_reversal: the odd clip never is the right one from back to front.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        seed: int = 0,
        num_branches: int = 6,
        fusion: Fusion = "concat",
        hidden_features: int = 128,
        refuse_reversal: bool = False,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, scheduler=scheduler, seed=seed)
        if num_branches < 2:
            raise InputError(f"method.num_branches={num_branches} must be at least 2; one clip is odd among others.")
        if fusion not in get_args(Fusion):
            raise InputError(f"method.fusion={fusion!r} is not known; use one of {', '.join(get_args(Fusion))}.")
        if fusion == "sum_diff" and num_branches % 2 == 1:
            raise InputError(
                f"method.num_branches={num_branches} must be even with method.fusion=sum_diff, whose weight of the "
                f"middle branch would be 0; set method.num_branches={num_branches + 1}, or another method.fusion."
            )
        self.num_branches = num_branches
        self.fusion = fusion
        self.refuse_reversal = refuse_reversal
        self.pairs = list(combinations(range(num_branches), 2))
        parts = {"concat": num_branches, "sum_diff": 1, "abs_diff": len(self.pairs)}[fusion]
        self.head = nn.Sequential(
            nn.Linear(parts * backbone.feature_dim, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, num_branches),
        )

    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """One clip for each branch, long enough to have a wrong order."""
        if num_views != self.num_branches:
            raise InputError(
                f"sampler.num_views={num_views}, but a question has method.num_branches={self.num_branches} clips; set "
                f"sampler.num_views={self.num_branches}."
            )
        fewest = 3 if self.refuse_reversal else 2
        if not fewest <= num_frames <= 20:
            raise InputError(
                f"sampler.num_frames={num_frames} must be {fewest} to 20: the odd clip needs a wrong order, which is "
                "drawn from all of them; set sampler.num_frames=6 as in the paper."
            )

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Cross-entropy of the odd branch; the accuracy is logged beside it."""
        logits, labels = self.questions(batch)
        self.observed["accuracy"] = (logits.argmax(dim=1) == labels).float().mean()
        return {"odd_one_out": cross_entropy(logits, labels)}

    def questions(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Draws the odd branch of each video and its order: logits ``[B, V]`` and labels ``[B]``."""
        num_videos, num_branches, _, num_frames = batch.clips.shape[:4]
        orders, odd = draw_odd_ones(
            num_videos,
            num_branches=num_branches,
            num_frames=num_frames,
            refuse_reversal=self.refuse_reversal,
            device=batch.clips.device,
        )
        presented = batch.clips.gather(3, orders[:, :, None, :, None, None].expand_as(batch.clips))
        return self.predict(presented), odd

    def predict(self, presented: Tensor) -> Tensor:
        """Clips of which one is odd ``[B, V, C, T, H, W]`` to logits of its place ``[B, V]``."""
        features = self.backbone(presented.flatten(0, 1)).unflatten(0, presented.shape[:2])
        logits: Tensor = self.head(self.fuse(features))
        return logits

    def fuse(self, features: Tensor) -> Tensor:
        """What the head sees of the branches' features ``[B, V, D]``; see ``fusion``."""
        if self.fusion == "concat":
            return features.flatten(1)
        first, second = (list(branches) for branches in zip(*self.pairs, strict=True))
        differences = features[:, first] - features[:, second]
        return differences.sum(dim=1) if self.fusion == "sum_diff" else differences.abs().flatten(1)
