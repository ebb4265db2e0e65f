"""Low-shot read-outs: how far does a frozen representation come with few labels."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_video.evaluation.clips import NORMAL, NUM_CROPS, ClipSpec, Crops, Part
from ssl_video.evaluation.features import (
    FeatureSet,
    ProtocolResult,
    check_classes,
    check_crops,
    check_labelled,
    check_num_clips,
)
from ssl_video.evaluation.linear_layer import fit_linear_layer
from ssl_video.evaluation.neighbours import Items, compared_items, find_nearest, reach
from ssl_video.metrics.classification import topk_hits
from ssl_video.metrics.knn import vote
from ssl_video.utils.errors import InputError
from ssl_video.utils.label_list import listed_places, read_label_list, shown

ReadOut = Literal["linear", "knn"]
Rows = NDArray[np.int64]
# Takes places of labelled train videos; gives scores `[N_test, C]` and whether the fit converged.
_ReadOut = Callable[[Rows], tuple[Tensor, bool]]


@dataclass(frozen=True)
class _Task:
    """One number of labels.

    Attributes:
        metric: name of its accuracy.
        draws: places of the labelled videos in the train part, one array per draw.
    """

    metric: str
    draws: list[Rows]


class LowShot:
    """Reads the classes out of stored features by few labelled train videos, several draws of them each.

    A share of the labels (`fractions`) is taken of each class, rounded, at least one video; N-shot (`shots`) takes
    equally many of each. The draws of one number are nested in the same draw of a larger one, so a curve over them is
    that of adding labels. Lists of labelled videos (`label_lists`) are taken as published; a class that such a list
    leaves out is always missed.

    Linear: the logistic regression of the linear probe, with one fixed penalty, as few labels leave nothing to choose
    it by. kNN: the weighted vote of the labelled videos, no more of them than a class has in the mean.

    Shots that the smallest class does not have are left out, and named in the settings, where there is anything else to
    measure.

    A metric is the mean over the draws, `…_std` the standard deviation over them (n - 1). The interval over videos is
    that of the mean of a video's hits over the draws.

    Args:
        read_out: linear or knn.
        fractions: shares of the labels, in (0, 1].
        shots: labelled videos per class.
        draws: draws of each.
        label_lists: files of labelled videos, one per line, as `semi` reads them.
        num_clips: evenly spread clips per video.
        crops: squares of each clip; see `ClipSpec`.
        strength: of the linear layer's penalty `strength / 2 * |W|^2`, which is added to the mean cross entropy.
        standardise: bring each feature to mean 0 and deviation 1 over the labelled clips, for the linear layer.
        max_iterations: of L-BFGS for each fit.
        k: labelled videos that vote.
        temperature: of the votes' weights exp(cosine / temperature).
        seed: of the draws.

    Raises:
        InputError: a list that cannot be read.
    """

    name: ClassVar[str] = "low_shot"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        *,
        read_out: ReadOut = "linear",
        fractions: Sequence[float] = (0.01, 0.05, 0.1, 0.2),
        shots: Sequence[int] = (1, 5, 10),
        draws: int = 5,
        label_lists: Sequence[str] = (),
        num_clips: int = 5,
        crops: Crops = "centre",
        strength: float = 0.01,
        standardise: bool = True,
        max_iterations: int = 200,
        k: int = 20,
        temperature: float = 0.07,
        seed: int = 0,
    ) -> None:
        check_num_clips(num_clips)
        check_crops(crops)
        if read_out not in get_args(ReadOut):
            raise ValueError(f"read_out={read_out} must be one of {', '.join(get_args(ReadOut))}.")
        if not (len(fractions) or len(shots) or len(label_lists)):
            raise ValueError("fractions, shots and label_lists must not all be empty; nothing would be measured.")
        if any(not 0 < fraction <= 1 for fraction in fractions):
            raise ValueError(f"fractions={list(fractions)} must lie in (0, 1]; they are shares of the labels.")
        counts = {"draws": draws, "k": k, "max_iterations": max_iterations, "shots": min(shots, default=1)}
        for name, number in counts.items():
            if number < 1:
                raise ValueError(f"{name}={number} must be at least 1.")
        for name, value in (("strength", strength), ("temperature", temperature)):
            if value <= 0:
                raise ValueError(f"{name}={value} must be above 0.")
        self.lists = {
            _metric_of_list(file): read_label_list(Path(file), key="evaluation.label_lists") for file in label_lists
        }
        if len(self.lists) < len(label_lists):
            raise ValueError(f"label_lists={list(label_lists)} must have different names; they name the metrics.")
        self.read_out: ReadOut = read_out
        self.fractions = sorted({float(fraction) for fraction in fractions})
        self.shots = sorted({int(number) for number in shots})
        self.draws = draws
        self.label_lists = [Path(file).name for file in label_lists]
        self.num_clips = num_clips
        self.crops: Crops = crops
        self.strength = strength
        self.standardise = standardise
        self.max_iterations = max_iterations
        self.k = k
        self.temperature = temperature
        self.seed = seed

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return the clips of either part."""
        return {NORMAL: ClipSpec(num_clips=self.num_clips, crops=self.crops)}

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Fit on few videos of `train`, classify those of `test`.

        Raises:
            InputError: an empty part, videos without a label, features that are not finite, a train part of one class,
                a class without train videos or with fewer than the shots, or a list that does not fit the train part.
        """
        check_labelled(train, test, num_classes=num_classes)
        check_classes(train)
        result = ProtocolResult(metrics={}, settings=self._settings(train))
        tasks, test_labels = self._tasks(train, num_classes=num_classes), test.labels.cpu()
        read = (self._linear if self.read_out == "linear" else self._knn)(train, test, num_classes=num_classes)
        for task in tasks:
            outcomes = [read(rows) for rows in task.draws]
            hits = np.stack([topk_hits(scores, test_labels, k=1).double().numpy() for scores, _ in outcomes])
            accuracies = hits.mean(axis=1)
            result.per_video[task.metric] = hits.mean(axis=0)
            result.metrics[task.metric] = float(np.mean(result.per_video[task.metric]))
            if len(accuracies) > 1:
                result.metrics[f"{task.metric}_std"] = stdev(accuracies.tolist())
            result.details[task.metric] = {
                "labelled_videos": len(task.draws[0]),
                "labelled_videos_per_class": _per_class(train, task.draws[0], num_classes=num_classes),
                "draws": accuracies.tolist(),
                "converged": all(converged for _, converged in outcomes),
            }
        return result

    def _settings(self, train: FeatureSet) -> dict[str, Any]:
        smallest = int(np.unique(train.labels.cpu().numpy(), return_counts=True)[1].min())
        common = {
            "read_out": self.read_out,
            "fractions": self.fractions,
            "shots": self.shots,
            "shots_left_out": [shots for shots in self.shots if shots > smallest],
            "draws": self.draws,
            "label_lists": self.label_lists,
            "seed": self.seed,
            "num_clips": train.num_clips // NUM_CROPS[self.crops],
            "crops": self.crops,
        }
        if self.read_out == "knn":
            return common | {"k_asked": self.k, "temperature": self.temperature}
        return common | {
            "strength": self.strength,
            "standardise": self.standardise,
            "max_iterations": self.max_iterations,
        }

    def _tasks(self, train: FeatureSet, *, num_classes: int) -> list[_Task]:
        """Return what is to be measured, with the labelled videos of each draw."""
        labels = train.labels.cpu().numpy()
        sizes = np.bincount(labels, minlength=num_classes)
        if self.fractions or self.shots:
            _check_sizes(sizes, [] if self.fractions or self.lists else self.shots)
        counts = {
            _metric_of_fraction(share): np.maximum(1, (share * sizes + 0.5).astype(int)) for share in self.fractions
        }
        counts |= {f"top1_{shots}_shot": np.full(num_classes, shots) for shots in self.shots if shots <= sizes.min()}
        seeds = range(self.seed, self.seed + self.draws)
        tasks = [
            _Task(metric, [draw_per_class(labels, own, seed=seed) for seed in seeds]) for metric, own in counts.items()
        ]
        paths = train.paths or train.video_ids
        for file, (metric, lines) in zip(self.label_lists, self.lists.items(), strict=True):
            tasks.append(_Task(metric, [_listed(file, lines, paths, labels)]))
        return tasks

    def _linear(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> _ReadOut:
        """Return the read-out by a linear layer."""
        features, asked, labels = _as_array(train), _as_array(test), train.labels.cpu().numpy()

        def read(rows: Rows) -> tuple[Tensor, bool]:
            layer = fit_linear_layer(
                features[rows],
                labels[rows],
                strength=self.strength,
                standardise=self.standardise,
                max_iterations=self.max_iterations,
            )
            return torch.from_numpy(layer.probabilities(asked, num_classes=num_classes)), layer.converged

        return read

    def _knn(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> _ReadOut:
        """Return the read-out by the nearest labelled videos."""
        gallery, asked = compared_items(train, test, "video")

        def read(rows: Rows) -> tuple[Tensor, bool]:
            voters = Items(gallery.features[rows], gallery.labels[rows], gallery.videos[rows])
            per_class = max(1, len(rows) // len(voters.labels.unique()))
            k = min(self.k, per_class, reach(voters, asked))
            similarities, found = find_nearest(voters, asked, k=k, search="exact")
            labels = voters.labels.to(found.device)[found]
            votes = vote(similarities, labels, num_classes=num_classes, temperature=self.temperature)
            return votes.masked_fill(votes == 0, -torch.inf).cpu(), True

        return read


def draw_per_class(labels: np.ndarray, counts: np.ndarray, *, seed: int) -> Rows:
    """Draw some videos of each class; with the same seed, smaller counts draw a part of what larger ones do.

    Args:
        labels: `[N]` classes in 0 .. C - 1.
        counts: `[C]` videos wanted of each, at most as many as there are.
        seed: of the draw.

    Returns:
        Ascending places of the videos.
    """
    rng = np.random.default_rng(seed)
    # Every class is put into order whole, so that the next one's order does not depend on this one's count.
    drawn = [rng.permutation(np.flatnonzero(labels == label))[:count] for label, count in enumerate(counts)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def _check_sizes(sizes: np.ndarray, shots: Sequence[int]) -> None:
    """Raise InputError where a class has no train videos, or fewer than the shots that must be there."""
    total, smallest = int(sizes.sum()), int(sizes.min())
    if smallest == 0:
        empty = np.flatnonzero(sizes == 0).tolist()
        raise InputError(
            f"{len(empty)} of {len(sizes)} classes have none of the {total} train videos (first: class number "
            f"{empty[0]}), a draw needs one of each; give a split with videos of every class in train, or "
            "evaluation.fractions=[] evaluation.shots=[] with evaluation.label_lists=[FILE]."
        )
    if shots and max(shots) > smallest:
        few = np.flatnonzero(sizes < max(shots)).tolist()
        fitting = [number for number in shots if number <= smallest]
        raise InputError(
            f"shots={max(shots)} is more than {len(few)} of {len(sizes)} classes have: the smallest, class number "
            f"{int(sizes.argmin())}, has {smallest} train videos; give evaluation.shots={fitting}."
        )


def _listed(file: str, lines: Sequence[str], paths: Sequence[str], labels: np.ndarray) -> Rows:
    """Return the places of the videos that a list names.

    Raises:
        InputError: it names videos that are not in the train part, or of one class only.
    """
    rows, absent = listed_places(lines, paths)
    if absent:
        raise InputError(
            f"evaluation.label_lists: {file} names {len(absent)} of {len(lines)} videos that are no labelled, readable "
            f"train videos of this data set: {shown(absent)}. Paths are relative to dataset.root; give the list of "
            "this split."
        )
    if len(np.unique(labels[rows])) < 2:
        raise InputError(
            f"evaluation.label_lists: all {len(rows)} videos of {file} have one class, at least 2 are needed; "
            "give another list or label column (dataset.label=NAME)."
        )
    return rows


def _metric_of_fraction(share: float) -> str:
    return f"top1_at_{100 * share:g}_percent".replace(".", "_")


def _metric_of_list(file: str) -> str:
    return "top1_list_" + re.sub(r"\W+", "_", Path(file).stem)


def _per_class(train: FeatureSet, rows: Rows, *, num_classes: int) -> list[int]:
    counts: list[int] = np.bincount(train.labels.cpu().numpy()[rows], minlength=num_classes).tolist()
    return counts


def _as_array(videos: FeatureSet) -> np.ndarray:
    """Return the features `[N, V, D]` as float64."""
    return videos.features.double().cpu().numpy()
