"""How far a mean over videos may be off by the choice of the videos."""

import numpy as np
from scipy import stats

# Numbers drawn at a time; more videos mean fewer resamples per batch, not more memory.
DRAWN_AT_A_TIME = 4_000_000


def bootstrap_interval(
    values: np.ndarray, *, seed: int = 0, confidence: float = 0.95, num_resamples: int = 2000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of one value per video.

    It speaks of the choice of test videos only, not of seeds or training. Where all values are equal (also for a single
    video) resampling finds no spread, and both ends are that value.

    Args:
        values: `[N]`, one number per video.
        seed: of the resampling; the same seed gives the same interval.
        confidence: share of the resampled means inside the interval.
        num_resamples: how often the videos are drawn again.

    Raises:
        ValueError: no values, not one-dimensional, or not finite.
    """
    values = _checked("values", values)
    if np.all(values == values[0]):
        return float(values[0]), float(values[0])
    return _percentile_interval([values], seed=seed, confidence=confidence, num_resamples=num_resamples)


def balanced_accuracy_interval(
    hits: np.ndarray, labels: np.ndarray, *, seed: int = 0, confidence: float = 0.95, num_resamples: int = 2000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean over the classes of each class's share of hits.

    Videos are drawn again within their class, so every class keeps its size and none can vanish (a stratified
    bootstrap). A class with a single video, or with equal values only, adds no spread; the interval is too narrow where
    many classes are that small.

    Args:
        hits: `[N]`, 1 where the named class is the label.
        labels: `[N]` classes.
        seed: of the resampling.
        confidence: share of the resampled means inside the interval.
        num_resamples: how often the videos are drawn again.

    Raises:
        ValueError: no hits, numbers that do not fit each other, or not finite.
    """
    hits, labels = _checked("hits", hits), np.asarray(labels)
    if labels.shape != hits.shape:
        raise ValueError(f"hits {hits.shape} and labels {labels.shape} must be [N] both, one of each per video.")
    classes = [hits[labels == label] for label in np.unique(labels)]
    varied = [values for values in classes if np.any(values != values[0])]
    fixed = sum(float(values[0]) for values in classes if np.all(values == values[0]))
    low, high = 0.0, 0.0
    if varied:
        low, high = _percentile_interval(varied, seed=seed, confidence=confidence, num_resamples=num_resamples)
    return (fixed + low * len(varied)) / len(classes), (fixed + high * len(varied)) / len(classes)


def paired_difference_interval(
    ours: np.ndarray, theirs: np.ndarray, *, seed: int = 0, confidence: float = 0.95, num_resamples: int = 2000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of `ours - theirs` over the same videos.

    What both find hard or easy cancels out, so it is narrower than two intervals side by side suggest. An interval
    without 0 says that the choice of the videos does not explain the difference.

    Args:
        ours: `[N]`, one number per video.
        theirs: `[N]`, of the same videos in the same order.
        seed: of the resampling.
        confidence: share of the resampled means inside the interval.
        num_resamples: how often the videos are drawn again.

    Raises:
        ValueError: no values, different numbers of videos, or not finite.
    """
    ours, theirs = _checked("ours", ours), _checked("theirs", theirs)
    if ours.shape != theirs.shape:
        raise ValueError(f"ours {ours.shape} and theirs {theirs.shape} must speak of the same videos, in one order.")
    return bootstrap_interval(ours - theirs, seed=seed, confidence=confidence, num_resamples=num_resamples)


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    """Return the values as float64; raise ValueError unless they are one finite number per video."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"{name} of shape {values.shape} must be [N] finite numbers with N >= 1, one per video.")
    return values


def _mean_of_means(*samples: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean over the samples of each one's mean along `axis`."""
    means = [np.mean(sample, axis=axis) for sample in samples]
    return np.asarray(np.mean(means, axis=0))


def _percentile_interval(
    samples: list[np.ndarray], *, seed: int, confidence: float, num_resamples: int
) -> tuple[float, float]:
    """Return the interval of the mean of the samples' means, each sample drawn again by itself."""
    result = stats.bootstrap(
        samples,
        _mean_of_means,
        n_resamples=num_resamples,
        confidence_level=confidence,
        # Percentile: stays inside the range of the values, and the default's jackknife is quadratic in N.
        method="percentile",
        batch=max(1, DRAWN_AT_A_TIME // sum(sample.size for sample in samples)),
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
