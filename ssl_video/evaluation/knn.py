"""The k-nearest-neighbour protocol: no training, the test of frozen features that is cheapest to run."""

from typing import ClassVar

import numpy as np
import torch

from ssl_video.evaluation.clips import NORMAL, ClipSpec, Part
from ssl_video.evaluation.features import FeatureSet, ProtocolResult, check_labelled, check_num_clips
from ssl_video.metrics.classification import balanced_accuracy, topk_hits
from ssl_video.metrics.knn import knn_scores


class KNN:
    """Weighted vote of the k nearest train videos, by the cosine of the mean features over the clips.

    The weighting of Wu et al. (CVPR 2018, arXiv 1805.01978). No more than the mean number of train videos per class
    vote; the settings hold the k used and the k asked. A class without a vote is never a hit, also not in the top 5.

    Args:
        k: train videos that vote.
        temperature: of the weights exp(cosine / temperature).
        num_clips: evenly spread clips per video.
        cap_at_class_size: no more voters than a class has train videos in the mean.
    """

    name: ClassVar[str] = "knn"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = True

    def __init__(
        self, *, k: int = 20, temperature: float = 0.07, num_clips: int = 5, cap_at_class_size: bool = True
    ) -> None:
        if k < 1:
            raise ValueError(f"k={k} must be at least 1; someone has to vote.")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0; similarities are divided by it.")
        check_num_clips(num_clips)
        self.k = k
        self.temperature = temperature
        self.num_clips = num_clips
        self.cap_at_class_size = cap_at_class_size

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return the clips of either part."""
        return {NORMAL: ClipSpec(num_clips=self.num_clips)}

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Classify the videos of `test` by those of `train`.

        Raises:
            InputError: an empty part, or videos without a label.
        """
        check_labelled(train, test, num_classes=num_classes)
        # Neighbours beyond the size of a class are of other classes, however good the features are.
        per_class = max(1, len(train) // len(train.labels.unique()))
        k = min(self.k, per_class if self.cap_at_class_size else len(train))
        votes = knn_scores(
            test.video_features(),
            train.video_features(),
            train.labels,
            num_classes=num_classes,
            k=k,
            temperature=self.temperature,
        )
        scores = votes.masked_fill(votes == 0, -torch.inf)
        hits = {f"top{place}": topk_hits(scores, test.labels, k=place).double().cpu().numpy() for place in (1, 5)}
        metrics = {metric: float(np.mean(values)) for metric, values in hits.items()}
        metrics["balanced_accuracy"] = balanced_accuracy(scores.argmax(dim=1), test.labels)
        settings = {
            "k": k,
            "k_asked": self.k,
            "temperature": self.temperature,
            "num_clips": train.num_clips,
        }
        return ProtocolResult(metrics=metrics, per_video=hits, settings=settings)
