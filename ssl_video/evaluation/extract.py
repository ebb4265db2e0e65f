"""Frozen features of a split: every video is decoded once, whatever the number of backbones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.evaluation.features import FeatureSet
from ssl_video.utils.progress import with_progress


@dataclass(frozen=True)
class Extracted:
    """Features of each backbone over the same videos.

    Attributes:
        features: per backbone ``[N, V, D]`` float32 on the CPU.
        labels: ``[N]``.
        rows: ``[N]`` rows of the manifest.
        unreadable: rows that could not be decoded now, although they could when they were indexed.
    """

    features: dict[str, Tensor]
    labels: Tensor
    rows: Tensor
    unreadable: list[int]

    def feature_set(self, name: str, *, video_ids: Sequence[str], groups: Sequence[str | None]) -> FeatureSet:
        """One backbone's features of the labelled videos, with their names.

        Args:
            name: of the backbone.
            video_ids: per row of the manifest.
            groups: per row of the manifest.
        """
        kept = self.labels >= 0
        rows = self.rows[kept].tolist()
        return FeatureSet(
            features=self.features[name][kept],
            labels=self.labels[kept],
            video_ids=[video_ids[row] for row in rows],
            groups=[groups[row] for row in rows],
        )


@torch.inference_mode()
def extract_features(
    backbones: Mapping[str, Backbone], batches: Iterable[ClipBatch], *, device: torch.device, total: int, title: str
) -> Extracted:
    """Runs every backbone, in eval mode, over every clip.

    Args:
        backbones: by name; moved to ``device``.
        batches: of an evaluation loader.
        device: where to compute.
        total: number of batches, for the progress bar.
        title: what the bar says.
    """
    for backbone in backbones.values():
        backbone.eval().to(device)
    features: dict[str, list[Tensor]] = {name: [] for name in backbones}
    labels, rows = [], []
    unreadable: list[int] = []
    for batch in with_progress(batches, total=total, title=title, unit="batch"):
        unreadable += [failure.row for failure in batch.failures]
        if len(batch) == 0:
            continue
        clips = batch.clips.to(device).flatten(0, 1)
        for name, backbone in backbones.items():
            features[name].append(backbone(clips).float().cpu().unflatten(0, batch.clips.shape[:2]))
        labels.append(batch.labels)
        rows.append(batch.rows)
    none = torch.empty(0, dtype=torch.int64)
    return Extracted(
        features={
            name: torch.cat(parts) if parts else torch.empty(0, 1, backbones[name].feature_dim)
            for name, parts in features.items()
        },
        labels=torch.cat(labels) if labels else none,
        rows=torch.cat(rows) if rows else none,
        unreadable=unreadable,
    )
