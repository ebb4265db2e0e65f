"""Retrieval: at which place does the first gallery video of the query's class stand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_video.metrics.knn import similarity_chunks


@dataclass(frozen=True)
class Ranking:
    """Per query: what its ranked gallery is worth.

    Attributes:
        first_hit: `[Q]` int64, place of the nearest gallery row of the query's class, from 1; G + 1 if there is none.
        average_precision: `[Q]` float64, mean of the precision at the places of all such rows; 0 if there is none.
    """

    first_hit: Tensor
    average_precision: Tensor


def rank_gallery(
    queries: Tensor, query_labels: Tensor, gallery: Tensor, gallery_labels: Tensor, *, chunk_size: int = 256
) -> Ranking:
    """Rank the whole gallery for each query by cosine, the lower gallery row first where two are equally near.

    Args:
        queries: `[Q, D]`.
        query_labels: `[Q]` int64.
        gallery: `[G, D]`.
        gallery_labels: `[G]` int64.
        chunk_size: queries compared at a time; it bounds the memory, not the result.

    Returns:
        The place of the first hit and the average precision of each query.

    Raises:
        ValueError: numbers of labels that do not fit, or as in `similarity_chunks`.
    """
    if len(query_labels) != len(queries) or len(gallery_labels) != len(gallery):
        raise ValueError(
            f"{len(query_labels)} labels for {len(queries)} queries and {len(gallery_labels)} labels for "
            f"{len(gallery)} gallery rows: one each is needed."
        )
    first_hits, precisions = [], []
    places = torch.arange(1, len(gallery) + 1, dtype=torch.float64, device=gallery.device)
    for rows, similarities in similarity_chunks(queries, gallery, chunk_size=chunk_size):
        order = torch.sort(similarities, dim=1, descending=True, stable=True).indices
        hits = gallery_labels[order] == query_labels[rows, None]
        num_hits = hits.sum(dim=1)
        # argmax of equal values is left open by torch, so the first hit is found by its place.
        place_of_hit = torch.where(hits, places, float(len(gallery) + 1))
        first_hits.append(place_of_hit.min(dim=1).values.long())
        precision_at_hits = hits.cumsum(dim=1) / places * hits
        precisions.append(precision_at_hits.sum(dim=1) / num_hits.clamp(min=1))
    return Ranking(torch.cat(first_hits), torch.cat(precisions))


def recall_hits(first_hit: Tensor, *, k: int) -> Tensor:
    """Return `[Q]` bool: is any of the k nearest of the query's class (their mean is recall at k).

    This is the "top-k" of the video retrieval tables (Buechler et al., ECCV 2018; Xu et al., CVPR 2019).
    """
    if k < 1:
        raise ValueError(f"k={k} must be at least 1.")
    return first_hit <= k
