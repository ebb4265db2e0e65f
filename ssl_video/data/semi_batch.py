"""What semi-supervised methods are handed: labelled clips, and several views of unlabelled videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_video.data.batch import ClipBatch, Failure, Finish, Sample, collate

LABELED = "labeled"


@dataclass(frozen=True)
class SemiBatch:
    """Labelled clips and views of unlabelled videos; the same videos stand in the same order in every view.

    Attributes:
        labeled: ``B`` videos with labels; empty where a method learns without any.
        unlabeled: ``U`` videos per view (``fast``, ``slow``, ...); their ``labels`` are -1, whatever is known of them.
        hidden_labels: ``[U]`` int64, true labels of the unlabelled videos, -1 where there is none: to be looked at (are
            pseudo-labels right?), never to be learnt from.
    """

    labeled: ClipBatch
    unlabeled: dict[str, ClipBatch]
    hidden_labels: Tensor

    def __len__(self) -> int:
        return len(self.labeled) + len(self._first_view)

    @property
    def _first_view(self) -> ClipBatch:
        return next(iter(self.unlabeled.values()))

    @property
    def epoch(self) -> int:
        """The epoch all samples belong to."""
        return self._first_view.epoch

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Videos that could not be read while the batch was made, each once."""
        return self.labeled.failures + self._first_view.failures

    @property
    def restarts(self) -> dict[str, int]:
        """How many decoding processes were replaced while the batch was made, by the cause."""
        return dict(Counter(self.labeled.restarts) + Counter(self._first_view.restarts))

    @property
    def flags(self) -> dict[str, int]:
        """How many samples carry each flag of their sampler."""
        return dict(sum((Counter(part.flags) for part in (self.labeled, *self.unlabeled.values())), Counter()))

    @property
    def num_clips(self) -> int:
        """Clips in all parts."""
        return sum(part.num_clips for part in (self.labeled, *self.unlabeled.values()))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SemiBatch:
        """Moves all tensors to ``device``."""
        return SemiBatch(
            labeled=self.labeled.to(device, non_blocking),
            unlabeled={name: view.to(device, non_blocking) for name, view in self.unlabeled.items()},
            hidden_labels=self.hidden_labels.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> SemiBatch:
        """Copies all tensors to page-locked memory; the DataLoader calls this."""
        return SemiBatch(
            labeled=self.labeled.pin_memory(),
            unlabeled={name: view.pin_memory() for name, view in self.unlabeled.items()},
            hidden_labels=self.hidden_labels.pin_memory(),
        )

    def finished(self, finish: Finish, views: Mapping[str, Finish]) -> SemiBatch:
        """The batch with clips as the method takes them, each part finished by its own transform."""
        unlabeled = {name: view.finished(views[name]) for name, view in self.unlabeled.items()}
        return replace(self, labeled=self.labeled.finished(finish), unlabeled=unlabeled)


class SemiCollate:
    """Stacks the samples of a batch part by part.

    Args:
        hidden_labels: ``[len(manifest)]`` true classes, -1 for none.
    """

    def __init__(self, hidden_labels: NDArray[np.int64]) -> None:
        self.hidden_labels = hidden_labels

    def __call__(self, samples: Sequence[Mapping[str, Sample]]) -> SemiBatch:
        """One batch of samples as ``SemiDataset`` gives them."""
        names = list(dict.fromkeys(name for sample in samples for name in sample if name != LABELED))
        views = {name: collate([sample[name] for sample in samples if name in sample]) for name in names}
        return SemiBatch(
            labeled=collate([sample[LABELED] for sample in samples if LABELED in sample]),
            unlabeled=views,
            hidden_labels=torch.from_numpy(self.hidden_labels[views[names[0]].rows.numpy()]),
        )
