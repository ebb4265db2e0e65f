"""The k-nearest-neighbour protocol: no training, the test of frozen features that is cheapest to run."""

from typing import ClassVar

import numpy as np
import torch

from ssl_video.evaluation.clips import NORMAL, NUM_CROPS, ClipSpec, Crops, Part, Pooling
from ssl_video.evaluation.features import (
    FeatureSet,
    ProtocolResult,
    check_classes,
    check_crops,
    check_labelled,
    check_num_clips,
)
from ssl_video.evaluation.neighbours import (
    SHOWN_NEIGHBOURS,
    Level,
    Search,
    check_comparison,
    compared_items,
    find_nearest,
    reach,
)
from ssl_video.metrics.classification import balanced_accuracy, topk_hits
from ssl_video.metrics.knn import vote


class KNN:
    """Weighted vote of the k nearest train videos, by the cosine of the mean features over the clips.

    The weighting of Wu et al. (CVPR 2018, arXiv 1805.01978). No more than the mean number of train videos per class
    vote; the settings hold the k used and the k asked. A class without a vote is never a hit, also not in the top 5.
    A video never votes for itself, should it be in both parts.

    Args:
        k: train videos that vote; at the clip level, train clips.
        temperature: of the weights exp(cosine / temperature).
        num_clips: evenly spread clips per video.
        crops: squares of each clip; see `ClipSpec`.
        cap_at_class_size: no more voters than a class has train videos (clips) in the mean.
        level: compare videos by the mean of their clips, or each clip by itself; then the shares of the votes are
            averaged over the clips of a test video.
        pooling: of the last feature map; see `ClipSpec`.
        search: exact, or by faiss in float32.
    """

    name: ClassVar[str] = "knn"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        *,
        k: int = 20,
        temperature: float = 0.07,
        num_clips: int = 5,
        crops: Crops = "centre",
        cap_at_class_size: bool = True,
        level: Level = "video",
        pooling: Pooling = "mean",
        search: Search = "exact",
    ) -> None:
        if k < 1:
            raise ValueError(f"k={k} must be at least 1; someone has to vote.")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0; similarities are divided by it.")
        check_num_clips(num_clips)
        check_crops(crops)
        check_comparison(level=level, pooling=pooling, search=search)
        self.k = k
        self.temperature = temperature
        self.num_clips = num_clips
        self.crops: Crops = crops
        self.cap_at_class_size = cap_at_class_size
        self.level: Level = level
        self.pooling: Pooling = pooling
        self.search: Search = search

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return the clips of either part."""
        return {NORMAL: ClipSpec(num_clips=self.num_clips, crops=self.crops, pooling=self.pooling)}

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Classify the videos of `test` by those of `train`.

        Raises:
            InputError: an empty part, videos without a label, features that are not finite, a train part of one class
                or without other videos than those asked.
        """
        check_labelled(train, test, num_classes=num_classes)
        check_classes(train)
        voters, asked = compared_items(train, test, self.level)
        found = reach(voters, asked)
        # Neighbours beyond the size of a class are of other classes, however good the features are.
        per_class = max(1, len(voters.labels) // len(train.labels.unique()))
        k = min(self.k, found, per_class if self.cap_at_class_size else found)
        shown = min(SHOWN_NEIGHBOURS, found) if self.level == "video" else 0
        similarities, rows = find_nearest(voters, asked, k=max(k, shown), search=self.search)
        labels = voters.labels.to(rows.device)[rows[:, :k]]
        votes = vote(similarities[:, :k], labels, num_classes=num_classes, temperature=self.temperature)
        # At the video level each video is one item.
        votes = votes.cpu().unflatten(0, (len(test), -1)).mean(dim=1)
        scores, test_labels = votes.masked_fill(votes == 0, -torch.inf), test.labels.cpu()
        predictions = scores.argmax(dim=1)
        hits = {f"top{place}": topk_hits(scores, test_labels, k=place).double().numpy() for place in (1, 5)}
        metrics = {metric: float(np.mean(values)) for metric, values in hits.items()}
        metrics["balanced_accuracy"] = balanced_accuracy(predictions, test_labels)
        settings = {
            "k": k,
            "k_asked": self.k,
            "temperature": self.temperature,
            "num_clips": train.num_clips // NUM_CROPS[self.crops],
            "crops": self.crops,
            "level": self.level,
            "pooling": self.pooling,
            "search": self.search,
        }
        return ProtocolResult(
            metrics=metrics,
            per_video=hits,
            settings=settings,
            predictions=predictions.numpy(),
            neighbours=rows[:, :shown].cpu().numpy() if shown else None,
        )
