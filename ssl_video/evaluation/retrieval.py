"""The retrieval protocol: does the neighbourhood of a test video hold a train video of its class."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ssl_video.evaluation.clips import NORMAL, ClipSpec, Part
from ssl_video.evaluation.features import FeatureSet, ProtocolResult, check_labelled, check_num_clips
from ssl_video.metrics.retrieval import rank_gallery, recall_hits


class Retrieval:
    """Each test video asks the train videos, ranked by the cosine of the mean features over the clips.

    The protocol of clip order prediction (Xu et al., CVPR 2019): ten clips, the mean taken before any normalisation, a
    hit if any of the k nearest has the query's class. There the features are a max-pooled map of 9216 numbers, here
    whatever the backbone gives; the released loader drops the last incomplete batch, here no video is dropped.
    A query whose class has no train video counts as a miss everywhere.

    Args:
        recall_at: the k to report; one that exceeds the number of train videos (`gallery_videos` in the settings) asks
            all of them, and says no more than whether the class is there at all.
        num_clips: evenly spread clips per video.
    """

    name: ClassVar[str] = "retrieval"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = True

    def __init__(self, *, recall_at: Sequence[int] = (1, 5, 10, 20, 50), num_clips: int = 10) -> None:
        if len(recall_at) == 0 or min(recall_at) < 1:
            raise ValueError(f"recall_at={list(recall_at)} must hold numbers of neighbours, each at least 1.")
        check_num_clips(num_clips)
        self.recall_at = sorted({int(k) for k in recall_at})
        self.num_clips = num_clips

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return the clips of either part."""
        return {NORMAL: ClipSpec(num_clips=self.num_clips)}

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Retrieve for each video of `test` among those of `train`.

        Raises:
            InputError: an empty part, or videos without a label.
        """
        check_labelled(train, test, num_classes=num_classes)
        ranking = rank_gallery(test.video_features(), test.labels, train.video_features(), train.labels)
        per_video = {
            f"recall_at_{k}": recall_hits(ranking.first_hit, k=min(k, len(train))).double().cpu().numpy()
            for k in self.recall_at
        }
        per_video["mean_average_precision"] = ranking.average_precision.cpu().numpy()
        metrics = {metric: float(np.mean(values)) for metric, values in per_video.items()}
        metrics["median_rank"] = float(np.median(ranking.first_hit.cpu().numpy()))
        settings = {
            "recall_at": self.recall_at,
            "gallery_videos": len(train),
            "num_clips": train.num_clips,
        }
        return ProtocolResult(metrics=metrics, per_video=per_video, settings=settings)
