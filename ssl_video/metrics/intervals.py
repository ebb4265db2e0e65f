"""How far a mean over videos may be off by the choice of the videos."""

import numpy as np
from scipy import stats


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
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"values of shape {values.shape} must be [N] finite numbers with N >= 1, one per video.")
    if np.all(values == values[0]):
        return float(values[0]), float(values[0])
    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=num_resamples,
        confidence_level=confidence,
        # Percentile: stays inside the range of the values, and the default's jackknife is quadratic in N.
        method="percentile",
        batch=max(1, 4_000_000 // values.size),
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
