"""Class probabilities of videos: a classifier on every view, and their mean."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_video.data.batch import ClipBatch
from ssl_video.metrics.averaging import Averaged, classify_views
from ssl_video.modules.clip_classifier import ClipClassifier
from ssl_video.utils.errors import InputError


@dataclass(frozen=True)
class VideoScores:
    """What a classifier says of N videos.

    Attributes:
        probabilities: `[N, K]` float64 on the CPU.
        labels: `[N]`.
        unreadable: rows of the videos that could not be read any more, which are not among the N.
    """

    probabilities: Tensor
    labels: Tensor
    unreadable: list[int]


@torch.no_grad()
def score_videos(
    classifier: ClipClassifier, batches: Iterable[ClipBatch], *, device: torch.device, average: Averaged, at_once: int
) -> VideoScores:
    """Classify each video by the mean over its views.

    Args:
        classifier: put into eval mode.
        batches: of videos with all their views.
        device: where to compute.
        average: what is averaged; see `ssl_video.metrics.averaging`.
        at_once: clips that the backbone takes together, as memory allows.

    Raises:
        InputError: no video could be read.
    """
    classifier.eval()
    probabilities, labels = [], []
    unreadable: list[int] = []
    for batch in batches:
        unreadable += [failure.row for failure in batch.failures]
        if len(batch):
            features = view_features(classifier, batch, device=device, at_once=at_once)
            # In double precision, so that the mean of many views does not depend on their order.
            scores = classify_views(features, lambda clips: classifier.classify(clips).double(), average)
            probabilities.append(scores.cpu())
            labels.append(batch.labels)
    if not labels:
        raise InputError(f"none of the {len(unreadable)} videos to classify can be read any more; check the files.")
    return VideoScores(torch.cat(probabilities), torch.cat(labels), unreadable)


def view_features(classifier: ClipClassifier, batch: ClipBatch, *, device: torch.device, at_once: int) -> Tensor:
    """Return the backbone's features `[B, V, D]` of a batch, on `device`."""
    clips = batch.clips.flatten(0, 1).split(at_once)
    features: Tensor = torch.cat([classifier.backbone(part.to(device)) for part in clips])
    of_videos: Tensor = features.unflatten(0, batch.clips.shape[:2])
    return of_videos
