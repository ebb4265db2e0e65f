"""Nearest neighbours by cosine, and the weighted vote over them. Memory does not grow with the gallery."""

from collections.abc import Iterator
from math import sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# What the blocks of one comparison may take together.
BLOCK_BYTES = 2**28

# Rows of features: a tensor on any device, or an array, which may lie in a file (numpy.memmap).
Features = Tensor | np.ndarray


def nearest(
    queries: Features,
    gallery: Features,
    *,
    k: int,
    videos: tuple[Tensor, Tensor] | None = None,
    block_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the k nearest gallery rows of each query, nearest first; of equally near ones the lower row first.

    Blocks of queries are compared with blocks of the gallery, and the best so far are kept: nothing but a block is ever
    copied, turned to float64, or moved to another device.

    Args:
        queries: `[Q, D]`; the work is done on their device.
        gallery: `[G, D]`, on any device.
        k: neighbours, at most G, or what is left of G without the query's own video.
        videos: numbers of the queries' videos `[Q]` and of the gallery's `[G]`, int64: a query never finds rows of its
            own video. Without them it may find itself.
        block_size: rows of either side compared at a time; it bounds the memory, not the result. By default as many as
            256 MiB allow.

    Returns:
        Cosine similarities `[Q, k]` float32 and gallery rows `[Q, k]` int64.

    Raises:
        ValueError: `k` outside its bounds, shapes that do not fit, an empty side, or features that are not finite.
    """
    check_sides(queries, gallery)
    size = rows_per_block(queries.shape[1]) if block_size is None else block_size
    if size < 1:
        raise ValueError(f"block_size={size} must be at least 1.")
    left = len(gallery) - (0 if videos is None else int(own_rows(*videos).max()))
    if not 1 <= k <= left:
        own = "" if videos is None else " without a query's own video"
        raise ValueError(f"k={k} must lie in 1 .. {left}, the size of the gallery{own}.")
    parts = []
    for block in row_blocks(len(queries), size):
        unit = unit_rows(queries, block, side="queries")
        own_videos = None if videos is None else (videos[0][block], videos[1])
        parts.append(_nearest_of_block(unit, gallery, k=k, videos=own_videos, size=size))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def knn_scores(
    queries: Features,
    gallery: Features,
    gallery_labels: Tensor,
    *,
    num_classes: int,
    k: int,
    temperature: float,
    videos: tuple[Tensor, Tensor] | None = None,
    block_size: int | None = None,
) -> Tensor:
    """Score classes by a vote of the k nearest gallery rows, each weighted by exp(cosine / temperature).

    The non-parametric classifier of Wu et al. (CVPR 2018, arXiv 1805.01978, section 3.4).

    Args:
        queries: `[Q, D]`.
        gallery: `[G, D]`.
        gallery_labels: `[G]` int64 in 0 .. num_classes - 1.
        num_classes: number of classes.
        k: neighbours that vote, as in `nearest`.
        temperature: above 0.
        videos: as in `nearest`.
        block_size: as in `nearest`.

    Returns:
        `[Q, num_classes]` float64: shares of the vote, which sum to 1; exactly 0 for a class without a vote.

    Raises:
        ValueError: a temperature not above 0, labels outside the classes, or as in `nearest`.
    """
    if len(gallery_labels) != len(gallery):
        raise ValueError(f"{len(gallery_labels)} labels for {len(gallery)} gallery rows: one each is needed.")
    similarities, rows = nearest(queries, gallery, k=k, videos=videos, block_size=block_size)
    labels = gallery_labels.to(rows.device)[rows]
    return vote(similarities, labels, num_classes=num_classes, temperature=temperature)


def vote(similarities: Tensor, labels: Tensor, *, num_classes: int, temperature: float) -> Tensor:
    """Return each class's share of the neighbours' weights exp(cosine / temperature), `[Q, num_classes]` float64.

    Args:
        similarities: `[Q, k]` of the neighbours.
        labels: `[Q, k]` int64, their classes.
        num_classes: number of classes.
        temperature: above 0.

    Raises:
        ValueError: a temperature not above 0, or labels outside the classes.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be above 0; similarities are divided by it.")
    if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"gallery labels {int(labels.min())} .. {int(labels.max())} must lie in 0 .. {num_classes - 1} "
            f"(num_classes={num_classes})."
        )
    # A softmax is the same vote, scaled so that no temperature overflows.
    weights = torch.softmax(similarities.double() / temperature, dim=1)
    scores = torch.zeros(len(labels), num_classes, dtype=torch.float64, device=labels.device)
    return scores.scatter_add_(1, labels, weights)


def check_sides(queries: Features, gallery: Features) -> None:
    """Raise ValueError unless both sides have rows, all of one length."""
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries {tuple(queries.shape)}, gallery {tuple(gallery.shape)} must be [Q, D] and [G, D].")
    if len(queries) == 0 or len(gallery) == 0:
        raise ValueError(f"{len(queries)} queries and {len(gallery)} gallery rows: each side needs at least one.")


def own_rows(query_videos: Tensor, gallery_videos: Tensor) -> Tensor:
    """Return `[Q]`, how many gallery rows `[G]` are of each query's own video."""
    present, counts = torch.unique(gallery_videos, return_counts=True)
    place = torch.searchsorted(present, query_videos.to(present.device)).clamp(max=len(present) - 1)
    return torch.where(present[place] == query_videos.to(present.device), counts[place], 0)


def rows_per_block(dim: int, *, num_bytes: int = BLOCK_BYTES) -> int:
    """Return the largest n for which comparing n rows with n others of length `dim` takes about `num_bytes`."""
    # 32 bytes per pair: its similarity in float64 and float32, and the sorting of a tie. Per number of a row the same:
    # on both sides as float64, as it is and at unit length. So 32 n^2 + 32 n dim = num_bytes.
    return max(1, int((sqrt(dim**2 + num_bytes / 8) - dim) / 2))


def row_blocks(num_rows: int, size: int) -> Iterator[slice]:
    """Yield slices of `size` rows, the last as long as what is left."""
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def unit_rows(features: Features, rows: slice, *, side: str, device: torch.device | None = None) -> Tensor:
    """Return some rows at unit length in float64; a row of zeros stays.

    Args:
        features: `[N, D]`.
        rows: the ones wanted.
        side: what they are, for the message.
        device: where they are wanted; by default where they are.

    Raises:
        ValueError: features that are not finite.
    """
    # Copied from an array, as a file opened for reading alone cannot be lent to a tensor.
    block = features[rows] if isinstance(features, Tensor) else torch.from_numpy(np.array(features[rows]))
    block = block.to(device=device, dtype=torch.float64)
    if not bool(torch.isfinite(block).all()):
        raise ValueError(f"{side} hold features that are not finite; neighbours are not defined for them.")
    return functional.normalize(block, dim=1)


def similarity_blocks(
    unit_queries: Tensor, gallery: Features, *, videos: tuple[Tensor, Tensor] | None = None, size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the cosine similarities of some queries to `size` gallery rows at a time.

    They are computed in float64 and rounded to float32: the last bits of a matrix product depend on the blocks' sizes,
    and would otherwise decide between neighbours that are equally near.

    Args:
        unit_queries: `[q, D]` float64 of unit length or zero; see `unit_rows`.
        gallery: `[G, D]`.
        videos: numbers of the videos of these queries `[q]` and of the gallery `[G]`.
        size: gallery rows per block.

    Yields:
        The slice of the gallery and the similarities `[q, size]` float32; minus infinity for rows of a query's own
        video.

    Raises:
        ValueError: features that are not finite.
    """
    device = unit_queries.device
    for rows in row_blocks(len(gallery), size):
        similarities = (unit_queries @ unit_rows(gallery, rows, side="gallery", device=device).T).float()
        if videos is not None:
            own = videos[0].to(device)[:, None] == videos[1][rows].to(device)
            similarities.masked_fill_(own, -torch.inf)
        yield rows, similarities


def _nearest_of_block(
    unit_queries: Tensor, gallery: Features, *, k: int, videos: tuple[Tensor, Tensor] | None, size: int
) -> tuple[Tensor, Tensor]:
    """Return what `nearest` does, for one block of queries."""
    values = torch.empty(len(unit_queries), 0, dtype=torch.float32, device=unit_queries.device)
    rows = torch.empty(len(unit_queries), 0, dtype=torch.int64, device=unit_queries.device)
    for block, similarities in similarity_blocks(unit_queries, gallery, videos=videos, size=size):
        block_values, columns = _first_k(similarities, min(k, similarities.shape[1]))
        # The best so far stand before the block's, and are of lower rows: ties by the lower column are ties by the row.
        values, rows = torch.cat([values, block_values], dim=1), torch.cat([rows, columns + block.start], dim=1)
        values, order = _first_k(values, min(k, values.shape[1]))
        rows = rows.gather(1, order)
    return values, rows


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
