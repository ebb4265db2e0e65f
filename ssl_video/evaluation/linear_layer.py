"""A linear layer on frozen clip features: multinomial logistic regression, solved to convergence by L-BFGS."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

# Numbers in the features of a fit that one thread does fastest.
SMALL_FIT = 10_000_000


@dataclass(frozen=True)
class LinearLayer:
    """A fitted linear layer with the standardisation of its input.

    Attributes:
        model: of scikit-learn, on standardised clips.
        shift: `[D]`, subtracted first.
        scale: `[D]`, divided by; infinite for a feature that does not vary.
        converged: whether the iterations sufficed.
    """

    model: LogisticRegression
    shift: np.ndarray
    scale: np.ndarray
    converged: bool

    def probabilities(self, features: np.ndarray, *, num_classes: int) -> np.ndarray:
        """Return `[N, num_classes]`, the mean over the clips of each video; minus infinity for classes never seen.

        Args:
            features: `[N, V, D]`.
            num_classes: number of classes.
        """
        num_videos, num_clips, dim = features.shape
        clips = (features.reshape(-1, dim) - self.shift) / self.scale
        by_clip = self.model.predict_proba(clips).reshape(num_videos, num_clips, -1)
        scores = np.full((num_videos, num_classes), -np.inf)
        scores[:, self.model.classes_] = by_clip.mean(axis=1)
        return scores


def fit_linear_layer(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    strength: float,
    standardise: bool = True,
    max_iterations: int = 200,
) -> LinearLayer:
    """Fit the layer, each clip a sample with the label of its video.

    Args:
        features: `[N, V, D]` float64.
        labels: `[N]` of at least two classes.
        strength: of the penalty `strength / 2 * |W|^2`, which is added to the mean cross entropy.
        standardise: bring each feature to mean 0 and deviation 1 over the clips that are fitted on.
        max_iterations: of L-BFGS.
    """
    num_videos, num_clips, dim = features.shape
    clips = features.reshape(num_videos * num_clips, dim)
    shift = clips.mean(axis=0) if standardise else np.zeros(dim)
    scale = clips.std(axis=0) if standardise else np.ones(dim)
    # A feature that does not vary carries nothing; the rounding in its deviation must not be blown up.
    scale = np.where(scale > 1e-8 * np.abs(clips).max(initial=0.0), scale, np.inf)
    # scikit-learn sums the cross entropy over samples and divides by the penalty: C = 1 / (strength * samples).
    model = LogisticRegression(C=1 / (strength * len(clips)), max_iter=max_iterations)
    # Threads that wait for each other's small products take 50 times as long, or worse where others use the cores.
    threads = 1 if clips.size < SMALL_FIT else None
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(threads, user_api="blas"):
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit((clips - shift) / scale, np.repeat(labels, num_clips))
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return LinearLayer(model=model, shift=shift, scale=scale, converged=converged)


def choose_strength(
    features: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    *,
    strengths: Sequence[float],
    standardise: bool = True,
    max_iterations: int = 200,
) -> float:
    """Return the strength with the best accuracy on the videos `held_out`, when fitted on the others.

    Among equals the one that gives the true classes more probability wins, then the stronger: few videos give many
    ties. Where nothing is held out, it is the middle strength.

    Args:
        features: `[N, V, D]` float64.
        labels: `[N]`.
        held_out: `[N]` bool; see `hold_out`.
        strengths: to choose from, ascending; one is taken as it is.
        standardise: as in `fit_linear_layer`.
        max_iterations: as in `fit_linear_layer`.
    """
    if len(strengths) == 1 or not held_out.any():
        return strengths[len(strengths) // 2]
    asked = labels[held_out]
    quality: list[tuple[float, float, float]] = []
    for strength in strengths:
        layer = fit_linear_layer(
            features[~held_out],
            labels[~held_out],
            strength=strength,
            standardise=standardise,
            max_iterations=max_iterations,
        )
        scores = layer.probabilities(features[held_out], num_classes=int(labels.max()) + 1)
        accuracy = float(np.mean(scores.argmax(axis=1) == asked))
        quality.append((accuracy, float(np.mean(scores[np.arange(len(asked)), asked])), strength))
    return max(quality)[2]


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
