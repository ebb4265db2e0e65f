"""The linear probe: how well can a linear layer read the classes out of frozen features."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ssl_video.evaluation.clips import NORMAL, ClipSpec, Part
from ssl_video.evaluation.features import FeatureSet, ProtocolResult, check_labelled, check_num_clips
from ssl_video.metrics.classification import balanced_accuracy, topk_hits
from ssl_video.utils.errors import InputError


class LinearProbe:
    """Multinomial logistic regression on frozen clip features, solved to convergence by L-BFGS.

    Each train clip is a sample; a test video's score is the mean of its clips' class probabilities. The papers train
    this layer by SGD with a learning rate searched for each model; a convex problem with one searched number, the
    strength of the L2 penalty, has no such luck in it.

    The strength is chosen by accuracy on videos held out of the train part, whole groups where there are groups, never
    by the test part; then the layer is fitted again on all train videos. Every class keeps a video to fit on: where
    that leaves nothing to hold out, the middle strength is taken, and the settings say `validation_videos: 0`.

    Args:
        num_clips: evenly spread clips per video.
        strengths: of the penalty `strength / 2 * |W|^2`, which is added to the mean cross entropy.
        val_fraction: share of the train videos held out for the choice.
        standardise: bring each feature to mean 0 and deviation 1 over the clips that are fitted on.
        max_iterations: of L-BFGS for each fit.
        seed: of the draw of the videos held out.
    """

    name: ClassVar[str] = "linear_probe"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        *,
        num_clips: int = 5,
        strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        val_fraction: float = 0.1,
        standardise: bool = True,
        max_iterations: int = 200,
        seed: int = 0,
    ) -> None:
        check_num_clips(num_clips)
        if len(strengths) == 0 or min(strengths) <= 0:
            raise ValueError(f"strengths={list(strengths)} must hold numbers above 0; the penalty bounds the layer.")
        if not 0 < val_fraction <= 0.5:
            raise ValueError(f"val_fraction={val_fraction} must lie in (0, 0.5]; the larger part is fitted on.")
        if max_iterations < 1:
            raise ValueError(f"max_iterations={max_iterations} must be at least 1.")
        self.num_clips = num_clips
        self.strengths = sorted(float(strength) for strength in strengths)
        self.val_fraction = val_fraction
        self.standardise = standardise
        self.max_iterations = max_iterations
        self.seed = seed

    def clips(self, part: Part) -> dict[str, ClipSpec]:
        """Return the clips of either part."""
        return {NORMAL: ClipSpec(num_clips=self.num_clips)}

    def __call__(self, train: FeatureSet, test: FeatureSet, *, num_classes: int) -> ProtocolResult:
        """Fit on the videos of `train`, classify those of `test`.

        Raises:
            InputError: an empty part, videos without a label, or a train part of one class.
        """
        check_labelled(train, test, num_classes=num_classes)
        labels = train.labels.cpu().numpy()
        if len(np.unique(labels)) < 2:
            raise InputError(
                f"all {len(train)} train videos have one class, a probe needs at least 2; "
                "choose another label column (dataset.label=NAME) or split."
            )
        features = _as_array(train)
        held_out = hold_out(labels, train.groups, fraction=self.val_fraction, seed=self.seed)
        strength = self._choose_strength(features, labels, held_out)
        layer = self._fit(features, labels, strength)
        scores = torch.from_numpy(layer.probabilities(_as_array(test), num_classes=num_classes))
        test_labels = test.labels.cpu()
        hits = {f"top{place}": topk_hits(scores, test_labels, k=place).double().numpy() for place in (1, 5)}
        metrics = {metric: float(np.mean(values)) for metric, values in hits.items()}
        metrics["balanced_accuracy"] = balanced_accuracy(scores.argmax(dim=1), test_labels)
        settings = {
            "strength": strength,
            "validation_videos": int(held_out.sum()),
            "val_fraction": self.val_fraction,
            "standardise": self.standardise,
            "max_iterations": self.max_iterations,
            "converged": layer.converged,
            "seed": self.seed,
            "num_clips": train.num_clips,
        }
        return ProtocolResult(metrics=metrics, per_video=hits, settings=settings)

    def _choose_strength(self, features: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> float:
        """Return the strength with the best accuracy on the videos `held_out`.

        Among equals the one that gives the true classes more probability wins, then the stronger: few videos give
        many ties.
        """
        if len(self.strengths) == 1 or not held_out.any():
            return self.strengths[len(self.strengths) // 2]
        asked = labels[held_out]
        quality: list[tuple[float, float, float]] = []
        for strength in self.strengths:
            layer = self._fit(features[~held_out], labels[~held_out], strength)
            scores = layer.probabilities(features[held_out], num_classes=int(labels.max()) + 1)
            accuracy = float(np.mean(scores.argmax(axis=1) == asked))
            quality.append((accuracy, float(np.mean(scores[np.arange(len(asked)), asked])), strength))
        return max(quality)[2]

    def _fit(self, features: np.ndarray, labels: np.ndarray, strength: float) -> "_Layer":
        """Fit the layer on videos `[N, V, D]` with labels `[N]`, each clip a sample."""
        num_videos, num_clips, dim = features.shape
        clips = features.reshape(num_videos * num_clips, dim)
        shift = clips.mean(axis=0) if self.standardise else np.zeros(dim)
        scale = clips.std(axis=0) if self.standardise else np.ones(dim)
        # A feature that does not vary carries nothing; the rounding in its deviation must not be blown up.
        scale = np.where(scale > 1e-8 * np.abs(clips).max(initial=0.0), scale, np.inf)
        # scikit-learn sums the cross entropy over samples and divides by the penalty: C = 1 / (strength * samples).
        model = LogisticRegression(C=1 / (strength * len(clips)), max_iter=self.max_iterations)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit((clips - shift) / scale, np.repeat(labels, num_clips))
        converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        return _Layer(model=model, shift=shift, scale=scale, converged=converged)


@dataclass(frozen=True)
class _Layer:
    """A fitted linear layer with the standardisation of its input."""

    model: LogisticRegression
    shift: np.ndarray
    scale: np.ndarray
    converged: bool

    def probabilities(self, features: np.ndarray, *, num_classes: int) -> np.ndarray:
        """Return `[N, num_classes]`, the mean over the clips of each video; minus infinity for classes never seen."""
        num_videos, num_clips, dim = features.shape
        clips = (features.reshape(-1, dim) - self.shift) / self.scale
        by_clip = self.model.predict_proba(clips).reshape(num_videos, num_clips, -1)
        scores = np.full((num_videos, num_classes), -np.inf)
        scores[:, self.model.classes_] = by_clip.mean(axis=1)
        return scores


def hold_out(labels: np.ndarray, groups: Sequence[str | None], *, fraction: float, seed: int) -> np.ndarray:
    """Draw videos to hold out: whole groups where every video has one, such that every class keeps a video.

    Args:
        labels: `[N]` classes.
        groups: N group names or None.
        fraction: share of the videos to reach; at most half of the videos are held out.
        seed: of the draw.

    Returns:
        `[N]` bool, true for the videos held out; all false where no video can be spared.
    """
    if any(group is None for group in groups):
        units = np.arange(len(labels))
    else:
        units = np.unique(np.array(groups, dtype=str), return_inverse=True)[1]
    wanted = max(1, round(fraction * len(labels)))
    held_out = np.zeros(len(labels), dtype=bool)
    num_classes = len(np.unique(labels))
    for unit in np.random.default_rng(seed).permutation(units.max() + 1):
        if held_out.sum() >= wanted:
            break
        candidate = held_out | (units == unit)
        if 2 * candidate.sum() <= len(labels) and len(np.unique(labels[~candidate])) == num_classes:
            held_out = candidate
    return held_out


def _as_array(videos: FeatureSet) -> np.ndarray:
    """Return the features `[N, V, D]` as float64."""
    return videos.features.double().cpu().numpy()
