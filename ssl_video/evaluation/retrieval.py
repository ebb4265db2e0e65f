"""The retrieval protocol: does the neighbourhood of a test video hold a train video of its class."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

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
    Items,
    Level,
    Search,
    check_comparison,
    compared_items,
    find_nearest,
    reach,
)
from ssl_video.metrics.retrieval import rank_gallery, recall_hits


class Retrieval:
    """Each test video asks the train videos, ranked by the cosine of the mean features over the clips.

    The protocol of clip order prediction (Xu et al., CVPR 2019): ten clips, the mean taken before any normalisation, a
    hit if any of the k nearest has the query's class. Its features are a max-pooled map of 9216 numbers (the variant
    `retrieval_vcop`), here by default the mean of the map; its released loader drops the last incomplete batch, here no
    video is dropped. A query whose class has no train video counts as a miss everywhere. A video never finds itself,
    should it be in both parts.

    Args:
        recall_at: the k to report; one that exceeds the number of train videos (`gallery_videos` in the settings) asks
            all of them, and says no more than whether the class is there at all. At the clip level they count clips.
        num_clips: evenly spread clips per video.
        crops: squares of each clip; see `ClipSpec`.
        level: compare videos by the mean of their clips, or each clip by itself: then every clip asks, a clip of the
            same class from another video is a hit, and a video's value is the mean over its clips.
        pooling: of the last feature map; see `ClipSpec`.
        search: exact, or by faiss in float32, which looks no further than the largest k: then mean average precision
            and median rank, which need the whole ranking, are not reported.
    """

    name: ClassVar[str] = "retrieval"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        *,
        recall_at: Sequence[int] = (1, 5, 10, 20, 50),
        num_clips: int = 10,
        crops: Crops = "centre",
        level: Level = "video",
        pooling: Pooling = "mean",
        search: Search = "exact",
    ) -> None:
        if len(recall_at) == 0 or min(recall_at) < 1:
            raise ValueError(f"recall_at={list(recall_at)} must hold numbers of neighbours, each at least 1.")
        check_num_clips(num_clips)
        check_crops(crops)
        check_comparison(level=level, pooling=pooling, search=search)
        self.recall_at = sorted({int(k) for k in recall_at})
        self.num_clips = num_clips
        self.crops: Crops = crops
        self.level: Level = level
        self.pooling: Pooling = pooling
        self.search: Search = search

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return the clips of either part."""
        return {NORMAL: ClipSpec(num_clips=self.num_clips, crops=self.crops, pooling=self.pooling)}

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Retrieve for each video of `test` among those of `train`.

        Raises:
            InputError: an empty part, videos without a label, features that are not finite, a train part of one class
                or without other videos than those asked.
        """
        check_labelled(train, test, num_classes=num_classes)
        check_classes(train)
        gallery, queries = compared_items(train, test, self.level)
        found = reach(gallery, queries)
        if self.search == "exact":
            first_hit, precision, rows = self._rank(gallery, queries, found)
        else:
            first_hit, precision, rows = self._search(gallery, queries, found)
        by_query = {f"recall_at_{k}": recall_hits(first_hit, k=min(k, len(gallery.labels))) for k in self.recall_at}
        if precision is not None:
            by_query["mean_average_precision"] = precision
        # At the video level each video is one query.
        per_video = {
            name: values.double().cpu().unflatten(0, (len(test), -1)).mean(dim=1).numpy()
            for name, values in by_query.items()
        }
        metrics = {metric: float(np.mean(values)) for metric, values in per_video.items()}
        if precision is not None:
            metrics["median_rank"] = float(np.median(first_hit.cpu().numpy()))
        settings: dict[str, Any] = {
            "recall_at": self.recall_at,
            "gallery_videos": len(train),
            "num_clips": train.num_clips // NUM_CROPS[self.crops],
            "crops": self.crops,
            "level": self.level,
            "pooling": self.pooling,
            "search": self.search,
        }
        neighbours = rows[:, : min(SHOWN_NEIGHBOURS, found)].cpu().numpy() if self.level == "video" else None
        return ProtocolResult(metrics=metrics, per_video=per_video, settings=settings, neighbours=neighbours)

    def _rank(self, gallery: Items, queries: Items, found: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return first hit `[M]`, average precision `[M]` and nearest rows of each query, by the whole ranking."""
        ranking = rank_gallery(
            queries.features,
            queries.labels,
            gallery.features,
            gallery.labels,
            videos=(queries.videos, gallery.videos),
            num_nearest=min(SHOWN_NEIGHBOURS, found),
        )
        return ranking.first_hit, ranking.average_precision, ranking.nearest

    def _search(self, gallery: Items, queries: Items, found: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return the same without average precision; a first hit beyond what is searched counts as none."""
        depth = min(max(*self.recall_at, SHOWN_NEIGHBOURS), found)
        rows = find_nearest(gallery, queries, k=depth, search=self.search)[1]
        hits = gallery.labels[rows] == queries.labels[:, None]
        places = torch.arange(1, depth + 1)
        first_hit = torch.where(hits, places, len(gallery.labels) + 1).min(dim=1).values
        return first_hit, None, rows
