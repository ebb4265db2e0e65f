"""How features fill their space, whatever the labels: nothing is fitted, nothing is asked of train."""

from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ssl_video.evaluation.clips import NORMAL, ClipSpec, Part
from ssl_video.evaluation.features import FeatureSet, ProtocolResult, check_features
from ssl_video.metrics.alignment import clip_alignment
from ssl_video.metrics.rank import effective_rank, rankme
from ssl_video.metrics.uniformity import direction_std, mean_cosine, uniformity
from ssl_video.utils.errors import InputError

Videos = Literal["test", "all"]

UNIFORMITY_T = 2.0


class FeatureStatistics:
    """Alignment, uniformity, soft ranks and spread of frozen features.

    Clips against each other: `alignment`, the mean squared distance of two clips of a video on the unit sphere, lower
    is closer; low alone says nothing, a collapsed net has 0.

    Videos against each other, by the mean of their clips, as the neighbour protocols compare them: `uniformity` (log of
    the mean of exp(-2 distance²) over pairs, lower is more evenly spread), `mean_cosine` (1: all alike), `rankme` and
    `effective_rank` (dimensions in use, see `ssl_video.metrics.rank`; the settings hold the most there can be),
    `std_mean` and `std_min` (deviation of the unit-length features per dimension times √D, 1 where they fill the
    sphere) and `dead_dimensions` (share of dimensions whose deviation is below `dead_below`).

    Args:
        num_clips: evenly spread clips per video, at least 2.
        videos: of the test part, or of train and test.
        dead_below: deviation below which a dimension counts as dead.
        max_uniformity_videos: uniformity compares all pairs of no more videos than this, drawn where there are more.
        seed: of that draw.
    """

    name: ClassVar[str] = "features"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_clips: int = 5,
        videos: Videos = "test",
        dead_below: float = 0.01,
        max_uniformity_videos: int = 20_000,
        seed: int = 0,
    ) -> None:
        if num_clips < 2:
            raise ValueError(f"num_clips={num_clips} must be at least 2; alignment compares two clips of a video.")
        if videos not in get_args(Videos):
            raise ValueError(f"videos={videos!r} must be one of {', '.join(get_args(Videos))}.")
        if dead_below <= 0 or max_uniformity_videos < 2:
            raise ValueError(
                f"dead_below={dead_below} must be above 0, max_uniformity_videos={max_uniformity_videos} at least 2."
            )
        self.num_clips = num_clips
        self.videos: Videos = videos
        self.dead_below = dead_below
        self.max_uniformity_videos = max_uniformity_videos
        self.seed = seed

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return the clips of either part."""
        return {NORMAL: ClipSpec(num_clips=self.num_clips)}

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Measure the videos of `test`, or of both parts.

        Raises:
            InputError: an empty part, features that are not finite or all 0, or fewer than two videos.
        """
        check_features(train, test)
        parts = [test] if self.videos == "test" else [train, test]
        features = torch.cat([part.video_features() for part in parts])
        if len(features) < 2:
            raise InputError(
                f"{len(features)} video in the test part, at least 2 are needed to compare them; give a larger "
                "dataset.test_fraction, or take evaluation.videos=all."
            )
        if not bool(features.any()):
            raise InputError(f"the features of all {len(features)} videos are 0; the net has died or is not loaded.")
        alignment = torch.cat([block for part in parts for block in _alignment(part)]).numpy()
        drawn = self._drawn(features)
        std = direction_std(features)
        metrics = {
            "alignment": float(np.mean(alignment)),
            "uniformity": uniformity(drawn, t=UNIFORMITY_T),
            "rankme": rankme(features),
            "effective_rank": effective_rank(features),
            "mean_cosine": mean_cosine(features),
            "std_mean": float(std.mean()),
            "std_min": float(std.min()),
            "dead_dimensions": float((std < self.dead_below).double().mean()),
        }
        settings: dict[str, Any] = {
            "videos": self.videos,
            "compared_videos": len(features),
            "dimensions": features.shape[1],
            "largest_rank": min(features.shape),
            "num_clips": test.num_clips,
            "dead_below": self.dead_below,
            "uniformity_t": UNIFORMITY_T,
            "uniformity_videos": len(drawn),
            "seed": self.seed,
        }
        return ProtocolResult(metrics=metrics, per_video={"alignment": alignment}, settings=settings)

    def _drawn(self, features: Tensor) -> Tensor:
        """Return no more videos than are compared pair by pair."""
        if len(features) <= self.max_uniformity_videos:
            return features
        rng = np.random.default_rng(self.seed)
        rows = np.sort(rng.choice(len(features), size=self.max_uniformity_videos, replace=False))
        return features[torch.from_numpy(rows)]


def _alignment(videos: FeatureSet) -> list[Tensor]:
    """Return `[N]` in blocks: some videos at a time, as all clips in float64 would take twice what they take."""
    return [clip_alignment(block).cpu() for block in videos.features.split(4096)]
