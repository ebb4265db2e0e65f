"""Nearest neighbours by the faiss library (the `faiss` extra): all pairs in float32, about twice as fast on a CPU."""

import torch
from torch import Tensor

from ssl_video.metrics.knn import Features, check_sides, own_rows, row_blocks, rows_per_block, unit_rows


def nearest_by_faiss(
    queries: Features, gallery: Features, *, k: int, videos: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the k nearest gallery rows of each query, nearest first, as `ssl_video.metrics.knn.nearest` does.

    Every pair is compared, in float32: neighbours whose cosines differ by less than about 1e-6 may change places with
    those of the exact search, and of equally near ones at the k-th place faiss picks. The index is a float32 copy of
    the gallery.

    Args:
        queries: `[Q, D]`.
        gallery: `[G, D]`.
        k: neighbours, at most G, or what is left of G without the query's own video.
        videos: numbers of the queries' videos `[Q]` and of the gallery's `[G]`, int64: a query never finds rows of its
            own video.

    Returns:
        Cosine similarities `[Q, k]` float32 and gallery rows `[Q, k]` int64, on the CPU.

    Raises:
        ModuleNotFoundError: faiss is not installed.
        ValueError: as in `ssl_video.metrics.knn.nearest`.
    """
    import faiss

    check_sides(queries, gallery)
    own = 0 if videos is None else int(own_rows(*videos).max())
    if not 1 <= k <= len(gallery) - own:
        raise ValueError(f"k={k} must lie in 1 .. {len(gallery) - own}, the gallery without a query's own video.")
    index = faiss.IndexFlatIP(gallery.shape[1])
    cpu, size = torch.device("cpu"), rows_per_block(gallery.shape[1])
    for block in row_blocks(len(gallery), size):
        index.add(unit_rows(gallery, block, side="gallery", device=cpu).float().numpy())
    parts = []
    for block in row_blocks(len(queries), size):
        unit = unit_rows(queries, block, side="queries", device=cpu).float()
        similarities, rows = (torch.from_numpy(found) for found in index.search(unit.numpy(), k + own))
        if videos is not None:
            own_video = videos[0].cpu()[block][:, None] == videos[1].cpu()[rows]
            similarities = similarities.masked_fill(own_video, -torch.inf)
        parts.append(_in_order(similarities, rows, k=k))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _in_order(similarities: Tensor, rows: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """Return the first k of each query `[q, n]`, of equally near ones the lower row first."""
    by_row = rows.argsort(dim=1)
    similarities, rows = similarities.gather(1, by_row), rows.gather(1, by_row)
    order = similarities.argsort(dim=1, descending=True, stable=True)[:, :k]
    return similarities.gather(1, order), rows.gather(1, order)
