"""Reads the classes out of stored features once, to be asked of several states of the same clips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ssl_video.evaluation.features import FeatureSet
from ssl_video.evaluation.knn import KNN
from ssl_video.evaluation.linear_layer import choose_strength, fit_linear_layer, hold_out

ReadOut = Literal["linear", "knn"]


@dataclass(frozen=True)
class Answers:
    """What a classifier says of test videos.

    Attributes:
        predictions: `[N]` int64 class named for each.
        chosen: what was chosen for it, in plain values.
    """

    predictions: NDArray[np.int64]
    chosen: dict[str, Any]


@dataclass(frozen=True)
class ClassReadOut:
    """How classes are read out: as the protocols `linear_probe` and `knn` do by their defaults, with the same result.

    Attributes:
        read_out: linear, a logistic regression on standardised clips, or knn, a vote by the clips' mean.
        k: knn: train videos that vote.
        temperature: knn: of the weights exp(cosine / temperature).
        strengths: linear: of the penalty, to choose from on videos held out of the train part.
        val_fraction: linear: share of the train videos held out.
        max_iterations: linear: of L-BFGS for each fit.
        seed: linear: of the videos held out.
    """

    read_out: ReadOut = "linear"
    k: int = 20
    temperature: float = 0.07
    strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    val_fraction: float = 0.1
    max_iterations: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.read_out not in get_args(ReadOut):
            raise ValueError(f"read_out={self.read_out!r} must be one of {', '.join(get_args(ReadOut))}.")
        if len(self.strengths) == 0 or min(self.strengths) <= 0:
            raise ValueError(f"strengths={list(self.strengths)} must hold numbers above 0.")
        if not 0 < self.val_fraction <= 0.5:
            raise ValueError(f"val_fraction={self.val_fraction} must lie in (0, 0.5]; the larger part is fitted on.")
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations={self.max_iterations} must be at least 1.")
        KNN(k=self.k, temperature=self.temperature)

    def settings(self) -> dict[str, Any]:
        """What was set, of the read-out that is taken."""
        if self.read_out == "knn":
            return {"read_out": "knn", "k_asked": self.k, "temperature": self.temperature}
        return {
            "read_out": "linear",
            "strengths_asked": sorted(float(strength) for strength in self.strengths),
            "val_fraction": self.val_fraction,
            "max_iterations": self.max_iterations,
            "seed": self.seed,
        }

    def fit(self, train: FeatureSet, *, num_classes: int) -> Callable[[FeatureSet], Answers]:
        """Return what names the classes of test videos by their clips.

        Args:
            train: labelled videos of two classes or more.
            num_classes: number of classes.
        """
        if self.read_out == "knn":
            return lambda test: self._vote(train, test, num_classes=num_classes)
        features, labels = as_array(train), train.labels.cpu().numpy()
        held_out = hold_out(labels, train.groups, fraction=self.val_fraction, seed=self.seed)
        strengths = sorted(float(strength) for strength in self.strengths)
        strength = choose_strength(features, labels, held_out, strengths=strengths, max_iterations=self.max_iterations)
        layer = fit_linear_layer(features, labels, strength=strength, max_iterations=self.max_iterations)
        chosen = {"strength": strength, "converged": layer.converged}
        return lambda test: Answers(
            layer.probabilities(as_array(test), num_classes=num_classes).argmax(axis=1).astype(np.int64), chosen
        )

    def _vote(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> Answers:
        knn = KNN(k=self.k, temperature=self.temperature, num_clips=train.num_clips)
        result = knn(train, test, num_classes=num_classes)
        assert result.predictions is not None
        return Answers(result.predictions, {"k": result.settings["k"]})


def as_array(videos: FeatureSet) -> NDArray[np.float64]:
    """Return the features `[N, V, D]` as float64."""
    array: NDArray[np.float64] = videos.features.double().cpu().numpy()
    return array
