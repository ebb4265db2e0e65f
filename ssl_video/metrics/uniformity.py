"""Uniformity: how evenly the directions of features fill the sphere. Only directions count, never lengths."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize


def uniformity(features: Tensor, *, t: float = 2.0, chunk_size: int = 1024) -> float:
    """Return the log of the mean of exp(-t * squared distance) over all pairs of the unit-length rows of `[N, D]`.

    The uniformity loss of Wang & Isola (ICML 2020, arXiv 2005.10242): 0 where all rows have one direction, lower the
    more evenly they spread, never below -4 t. Directions drawn evenly in many dimensions come to about -2 t.

    Args:
        features: `[N, D]`, N at least 2.
        t: sharpness of the Gaussian, above 0.
        chunk_size: rows compared at a time; it bounds the memory (`chunk_size * N` numbers).

    Raises:
        ValueError: another shape, fewer than two rows, or t not above 0.
    """
    _check(features)
    if t <= 0 or chunk_size < 1:
        raise ValueError(f"t={t} must be above 0, and chunk_size={chunk_size} at least 1.")
    unit = normalize(features.double(), dim=1)
    lengths = unit.square().sum(dim=1)
    total = 0.0
    for start in range(0, len(unit), chunk_size):
        rows = slice(start, start + chunk_size)
        distances = lengths[rows, None] + lengths[start:] - 2 * unit[rows] @ unit[start:].T
        # Of each block the part right of the diagonal: every pair once, no row with itself.
        total += float(torch.exp(-t * distances.clamp_(min=0)).triu_(diagonal=1).sum())
    return math.log(total / (len(unit) * (len(unit) - 1) / 2))


def mean_cosine(features: Tensor) -> float:
    """Return the mean cosine over all pairs of the rows of `[N, D]`: 1 where all have one direction, 0 where none.

    Raises:
        ValueError: another shape, or fewer than two rows.
    """
    _check(features)
    unit = normalize(features.double(), dim=1)
    over_ordered_pairs = unit.sum(dim=0).square().sum() - unit.square().sum()
    return float(over_ordered_pairs) / (len(unit) * (len(unit) - 1))


def direction_std(features: Tensor) -> Tensor:
    """Return `[D]`: the standard deviation over the rows of `[N, D]`, made unit length, times the root of D.

    Near 1 in every dimension where directions fill the sphere around 0, 0 in a dimension that says the same of every
    row; the squares average to 1 less the squared length of the mean direction.

    Raises:
        ValueError: another shape, or fewer than two rows.
    """
    _check(features)
    unit = normalize(features.double(), dim=1)
    return unit.std(dim=0, correction=0) * math.sqrt(unit.shape[1])


def _check(features: Tensor) -> None:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features {tuple(features.shape)} must be [N, D] with N at least 2; pairs are compared.")
