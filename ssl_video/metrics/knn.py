"""Nearest neighbours by cosine, and the weighted vote over them."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional


def similarity_chunks(queries: Tensor, gallery: Tensor, *, chunk_size: int = 1024) -> Iterator[tuple[slice, Tensor]]:
    """Yield the cosine similarities of `chunk_size` queries at a time to the whole gallery.

    They are computed in float64 and rounded to float32: the last bits of a matrix product depend on the chunk's size,
    and would otherwise decide between neighbours that are equally near.

    Args:
        queries: `[Q, D]`; a row of zeros has similarity 0 to everything.
        gallery: `[G, D]`.
        chunk_size: queries per chunk; it bounds the memory (`chunk_size * G` numbers), not the result.

    Yields:
        The slice of the queries and their similarities `[q, G]` float32.

    Raises:
        ValueError: shapes that do not fit, an empty side, or features that are not finite.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries {tuple(queries.shape)}, gallery {tuple(gallery.shape)} must be [Q, D] and [G, D].")
    if len(queries) == 0 or len(gallery) == 0:
        raise ValueError(f"{len(queries)} queries and {len(gallery)} gallery rows: each side needs at least one.")
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} must be at least 1.")
    for name, features in (("queries", queries), ("gallery", gallery)):
        if not bool(torch.isfinite(features).all()):
            raise ValueError(f"{name} hold features that are not finite; neighbours are not defined for them.")
    unit_queries = functional.normalize(queries.double(), dim=1)
    unit_gallery = functional.normalize(gallery.double(), dim=1)
    for start in range(0, len(queries), chunk_size):
        rows = slice(start, min(start + chunk_size, len(queries)))
        yield rows, (unit_queries[rows] @ unit_gallery.T).float()


def nearest(queries: Tensor, gallery: Tensor, *, k: int, chunk_size: int = 1024) -> tuple[Tensor, Tensor]:
    """Return the k nearest gallery rows of each query, nearest first; of equally near ones the lower row first.

    Args:
        queries: `[Q, D]`.
        gallery: `[G, D]`.
        k: neighbours, at most G.
        chunk_size: queries compared at a time; see `similarity_chunks`.

    Returns:
        Cosine similarities `[Q, k]` float32 and gallery rows `[Q, k]` int64.

    Raises:
        ValueError: `k` outside 1 .. G, or as in `similarity_chunks`.
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k={k} must lie in 1 .. {len(gallery)}, the size of the gallery.")
    parts = [_first_k(chunk, k) for _, chunk in similarity_chunks(queries, gallery, chunk_size=chunk_size)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def knn_scores(
    queries: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    num_classes: int,
    k: int,
    temperature: float,
    chunk_size: int = 1024,
) -> Tensor:
    """Score classes by a vote of the k nearest gallery rows, each weighted by exp(cosine / temperature).

    The non-parametric classifier of Wu et al. (CVPR 2018, arXiv 1805.01978, section 3.4).

    Args:
        queries: `[Q, D]`.
        gallery: `[G, D]`.
        gallery_labels: `[G]` int64 in 0 .. num_classes - 1.
        num_classes: number of classes.
        k: neighbours that vote, at most G.
        temperature: above 0.
        chunk_size: queries compared at a time; see `similarity_chunks`.

    Returns:
        `[Q, num_classes]` float64: shares of the vote, which sum to 1; exactly 0 for a class without a vote.

    Raises:
        ValueError: a temperature not above 0, labels outside the classes, or as in `nearest`.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be above 0; similarities are divided by it.")
    if len(gallery_labels) != len(gallery):
        raise ValueError(f"{len(gallery_labels)} labels for {len(gallery)} gallery rows: one each is needed.")
    if len(gallery_labels) and not 0 <= int(gallery_labels.min()) <= int(gallery_labels.max()) < num_classes:
        raise ValueError(
            f"gallery labels {int(gallery_labels.min())} .. {int(gallery_labels.max())} must lie in "
            f"0 .. {num_classes - 1} (num_classes={num_classes})."
        )
    similarities, rows = nearest(queries, gallery, k=k, chunk_size=chunk_size)
    # A softmax is the same vote, scaled so that no temperature overflows.
    weights = torch.softmax(similarities.double() / temperature, dim=1)
    scores = torch.zeros(len(queries), num_classes, dtype=torch.float64, device=queries.device)
    return scores.scatter_add_(1, gallery_labels.to(rows.device)[rows], weights)


def _first_k(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest values of each row `[q, G]`, and their columns, ties by the lower column."""
    reach = min(k + 1, similarities.shape[1])
    values, columns = torch.topk(similarities, reach, dim=1)
    # topk leaves the order of equal values open; only rows with such values pay for a full stable sort.
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1)
    if bool(tied.any()):
        order = torch.sort(similarities[tied], dim=1, descending=True, stable=True)
        values[tied], columns[tied] = order.values[:, :reach], order.indices[:, :reach]
    return values[:, :k], columns[:, :k]
