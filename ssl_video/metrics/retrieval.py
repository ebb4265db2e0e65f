"""Retrieval: at which place does the first gallery item of the query's class stand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_video.metrics.knn import Features, check_sides, row_blocks, rows_per_block, similarity_blocks, unit_rows

# What blocks, similarities and rankings may take each.
RANKING_BYTES = 2**28
# Per gallery row that is being ranked: its value, place, label, and the precision there.
SORTING_BYTES = 64


@dataclass(frozen=True)
class Ranking:
    """Per query: what its ranked gallery is worth.

    Attributes:
        first_hit: `[Q]` int64, place of the nearest gallery row of the query's class, from 1; G + 1 if there is none.
        average_precision: `[Q]` float64, mean of the precision at the places of all such rows; 0 if there is none.
        nearest: `[Q, n]` int64, the first rows of the ranking.
    """

    first_hit: Tensor
    average_precision: Tensor
    nearest: Tensor


def rank_gallery(
    queries: Features,
    query_labels: Tensor,
    gallery: Features,
    gallery_labels: Tensor,
    *,
    videos: tuple[Tensor, Tensor] | None = None,
    num_nearest: int = 0,
    num_bytes: int = RANKING_BYTES,
) -> Ranking:
    """Rank the whole gallery for each query by cosine, the lower gallery row first where two are equally near.

    Args:
        queries: `[Q, D]`; the work is done on their device.
        query_labels: `[Q]` int64.
        gallery: `[G, D]`, on any device.
        gallery_labels: `[G]` int64.
        videos: numbers of the queries' videos `[Q]` and of the gallery's `[G]`, int64: rows of a query's own video are
            no part of its ranking. Without them a query may find itself.
        num_nearest: how many rows of each ranking to return, at most G.
        num_bytes: what blocks, similarities and rankings may take each, about; it bounds the memory, not the result.
            The ranking of one query (68 bytes per gallery row) is the least.

    Returns:
        The place of the first hit and the average precision of each query.

    Raises:
        ValueError: numbers of labels that do not fit, or as in `ssl_video.metrics.knn.nearest`.
    """
    check_sides(queries, gallery)
    if len(query_labels) != len(queries) or len(gallery_labels) != len(gallery):
        raise ValueError(
            f"{len(query_labels)} labels for {len(queries)} queries and {len(gallery_labels)} labels for "
            f"{len(gallery)} gallery rows: one each is needed."
        )
    block_size = rows_per_block(queries.shape[1], num_bytes=num_bytes)
    queries_at_a_time = min(block_size, max(1, num_bytes // (4 * len(gallery))))
    ranked_at_a_time = max(1, num_bytes // (SORTING_BYTES * len(gallery)))
    parts: list[Ranking] = []
    for block in row_blocks(len(queries), queries_at_a_time):
        unit = unit_rows(queries, block, side="queries")
        similarities = torch.empty(len(unit), len(gallery), dtype=torch.float32, device=unit.device)
        asked, own_labels = query_labels.to(unit.device), gallery_labels.to(unit.device)
        own_videos = None if videos is None else (videos[0][block], videos[1])
        for columns, found in similarity_blocks(unit, gallery, videos=own_videos, size=block_size):
            similarities[:, columns] = found
        for rows in row_blocks(len(unit), ranked_at_a_time):
            parts.append(_ranked(similarities[rows], asked[block][rows], own_labels, num_nearest=num_nearest))
    return Ranking(
        first_hit=torch.cat([part.first_hit for part in parts]),
        average_precision=torch.cat([part.average_precision for part in parts]),
        nearest=torch.cat([part.nearest for part in parts]),
    )


def recall_hits(first_hit: Tensor, *, k: int) -> Tensor:
    """Return `[Q]` bool: is any of the k nearest of the query's class (their mean is recall at k).

    This is the "top-k" of the video retrieval tables (Buechler et al., ECCV 2018; Xu et al., CVPR 2019).
    """
    if k < 1:
        raise ValueError(f"k={k} must be at least 1.")
    return first_hit <= k


def _ranked(similarities: Tensor, query_labels: Tensor, gallery_labels: Tensor, *, num_nearest: int) -> Ranking:
    """Return the ranking of queries with similarities `[q, G]`; minus infinity means "no part of it"."""
    num_rows = similarities.shape[1]
    values, order = torch.sort(similarities, dim=1, descending=True, stable=True)
    hits = (gallery_labels[order] == query_labels[:, None]) & (values > -torch.inf)
    places = torch.arange(1, num_rows + 1, dtype=torch.float64, device=similarities.device)
    # argmax of equal values is left open by torch, so the first hit is found by its place.
    first_hit = torch.where(hits, places, float(num_rows + 1)).min(dim=1).values.long()
    precision_at_hits = hits.cumsum(dim=1) / places * hits
    average_precision = precision_at_hits.sum(dim=1) / hits.sum(dim=1).clamp(min=1)
    # A copy: a view would keep the whole order alive.
    return Ranking(first_hit, average_precision, order[:, :num_nearest].clone())
