"""The features of the test videos on a plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

PCA_DIMENSIONS = 50
# Fewer points than this have no neighbourhoods to keep; PCA alone places them.
FEWEST_FOR_TSNE = 10


@dataclass(frozen=True)
class FeatureMap:
    """Places of the shown videos.

    Attributes:
        rows: ``[M]`` which videos are shown, ascending.
        places: ``[M, 2]``.
        method: how the places were found, in words.
    """

    rows: np.ndarray
    places: np.ndarray
    method: str


def map_features(features: np.ndarray, *, max_points: int = 3000, seed: int = 0) -> FeatureMap | None:
    """Places features on a plane: unit length, PCA to at most 50 dimensions, then t-SNE.

    Beyond ``max_points`` a seeded draw without regard to label decides which videos are shown. The same features and
    seed give the same map.

    Args:
        features: ``[N, D]``.
        max_points: most videos on the map.
        seed: of the draw and of t-SNE.

    Returns:
        The map of those with finite features; None where fewer than three are left.
    """
    usable = np.flatnonzero(np.isfinite(features).all(axis=1))
    if len(usable) < 3:
        return None
    if len(usable) > max_points:
        usable = np.sort(np.random.default_rng(seed).choice(usable, max_points, replace=False))
    chosen = features[usable].astype(np.float64)
    # Cosine similarity is what the protocols on frozen features go by.
    chosen /= np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-12)
    dimensions = min(PCA_DIMENSIONS, len(chosen), chosen.shape[1])
    reduced = PCA(dimensions, svd_solver="full").fit_transform(chosen)
    if reduced.shape[1] < 2:
        reduced = np.pad(reduced, ((0, 0), (0, 2 - reduced.shape[1])))
    if len(chosen) < FEWEST_FOR_TSNE or not np.ptp(reduced, axis=0).any():
        return FeatureMap(usable, reduced[:, :2], "PCA")
    start = reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12) * 1e-4
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    places = TSNE(perplexity=perplexity, init=start, random_state=seed, n_jobs=1).fit_transform(reduced)
    return FeatureMap(usable, places, f"PCA to {dimensions} dimensions, then t-SNE (perplexity {perplexity:.0f})")
