"""How many dimensions features really use: soft ranks, from the entropy of a spectrum."""

import torch
from torch import Tensor

# Below this share of the features' length, what varies is the rounding of the float32 they were computed in.
FLOAT32_ROUNDING = 1e-6


def rankme(features: Tensor, *, epsilon: float = 1e-7, chunk_size: int = 4096) -> float:
    """Return RankMe of `[N, D]` (Garrido et al., ICML 2023, arXiv 2210.02885, equation 1).

    exp of the entropy of p_k = s_k / sum(s) + epsilon, over the min(N, D) singular values s of the features as they
    are, neither centred nor normalised. From 1 (all rows on one line through 0) to min(N, D); the epsilon adds a
    thousandth or so. The paper takes 25,600 images; where N is not far above D, N bounds the value.

    Args:
        features: `[N, D]`, not all 0.
        epsilon: of the paper, for float32.
        chunk_size: rows taken in at a time; it bounds the memory.

    Raises:
        ValueError: another shape, no rows, or nothing but zeros.
    """
    spectrum = singular_values(features, chunk_size=chunk_size)
    if float(spectrum.sum()) == 0:
        raise ValueError("all features are 0; a spectrum that is 0 has no shares.")
    return _exp_entropy(spectrum / spectrum.sum() + epsilon)


def effective_rank(features: Tensor, *, chunk_size: int = 4096) -> float:
    """Return the effective rank (Roy & Vetterli, EUSIPCO 2007) of the covariance matrix of `[N, D]`.

    exp of the entropy of the shares of variance along the principal axes, p_k = l_k / sum(l), l the eigenvalues of the
    covariance (they are its singular values). Against RankMe the mean is taken off, and variances are compared, not
    deviations: it is 1 where all variance lies along one line, and min(N - 1, D) at most. 0 where nothing varies beyond
    the rounding of float32, since a spectrum of rounding errors is flat and would look like full rank.

    Args:
        features: `[N, D]`.
        chunk_size: rows taken in at a time; it bounds the memory.

    Raises:
        ValueError: another shape, or no rows.
    """
    _check(features)
    rows = features.double()
    deviations = singular_values(rows - rows.mean(dim=0), chunk_size=chunk_size)
    if float(deviations.norm()) <= FLOAT32_ROUNDING * float(rows.norm()):
        return 0.0
    variances = deviations.square()
    return _exp_entropy(variances / variances.sum())


def singular_values(features: Tensor, *, chunk_size: int = 4096) -> Tensor:
    """Return the min(N, D) singular values of `[N, D]` in float64, largest first.

    Rows are taken in by QR decompositions, which keep the small singular values; the eigenvalues of the D x D product
    would lose those below 1e-8 of the largest.

    Raises:
        ValueError: another shape, no rows, or rows that are not finite.
    """
    _check(features)
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} must be at least 1.")
    triangle, *others = features.double().split(chunk_size)
    for rows in others:
        triangle = torch.linalg.qr(torch.cat([triangle, rows]), mode="r").R
    spectrum: Tensor = torch.linalg.svdvals(triangle)
    return spectrum


def _exp_entropy(shares: Tensor) -> float:
    """Return exp(-sum p log p), where 0 log 0 is 0."""
    return float(torch.special.entr(shares).sum().exp())


def _check(features: Tensor) -> None:
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(f"features {tuple(features.shape)} must be [N, D] with at least one row and one column.")
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features hold values that are not finite; they have no spectrum.")
