"""Which queries the sheet of nearest neighbours shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_video.report.contents import Measured, preferred

SHOWN_NEIGHBOURS = 5
# The protocols whose neighbours are shown, the first that there is.
ORDER = ("retrieval", "knn")


@dataclass(frozen=True)
class Item:
    """A video on the sheet; ``hit`` is None where either side has no label."""

    path: str
    label: str | None
    hit: bool | None = None


@dataclass(frozen=True)
class Query:
    """A test video and its nearest train videos, nearest first."""

    video: Item
    neighbours: list[Item]


@dataclass(frozen=True)
class Sheet:
    """The queries of one run.

    Attributes:
        run: the run's name.
        protocol: whose neighbours they are.
        queries: first those whose nearest neighbour is of their class, then the others.
        hits: how many of all test videos have a nearest neighbour of their class.
        total: test videos with a label and a neighbour.
    """

    run: str
    protocol: str
    queries: list[Query]
    hits: int
    total: int


def make_sheet(one: Measured, *, queries: int, seed: int = 0) -> Sheet | None:
    """Draws queries, half of them hits and half misses as far as there are so many; None without neighbours.

    A hit's nearest train video is of its class. Without labels there are neither, and the queries are drawn from all.

    Args:
        one: a run's results.
        queries: how many to draw.
        seed: of the draw.
    """
    found = one.predictions
    protocol = None if found is None else preferred(found.neighbours, ORDER)
    if found is None or protocol is None:
        return None
    paths, labels = found.neighbours[protocol], found.neighbour_labels.get(protocol)
    rows = []
    for place, (path, label) in enumerate(zip(found.paths, found.labels, strict=True)):
        near_labels = [None] * len(paths[place]) if labels is None else list(labels[place])
        known = label is not None
        near = [
            Item(near_path, near_label, near_label == label if known and near_label is not None else None)
            for near_path, near_label in zip(paths[place], near_labels, strict=True)
        ]
        if near:
            rows.append(Query(Item(path, label, near[0].hit), near[:SHOWN_NEIGHBOURS]))
    kinds = [np.array([place for place, row in enumerate(rows) if row.video.hit is kind]) for kind in (True, False)]
    chosen = _draw(*kinds, queries=queries, rng=np.random.default_rng(seed))
    if not chosen:
        rng = np.random.default_rng(seed)
        chosen = sorted(rng.permutation(len(rows))[:queries].tolist())
    return Sheet(one.run, protocol, [rows[place] for place in chosen], len(kinds[0]), len(kinds[0]) + len(kinds[1]))


def _draw(hits: np.ndarray, misses: np.ndarray, *, queries: int, rng: np.random.Generator) -> list[int]:
    """Half of each, in order; where one kind has too few, more of the other."""
    num_hits = min(len(hits), max(queries // 2, queries - len(misses)))
    num_misses = min(len(misses), queries - num_hits)
    drawn = [
        sorted(rng.choice(kind, number, replace=False).tolist()) if number else []
        for kind, number in ((hits, num_hits), (misses, num_misses))
    ]
    return [int(place) for places in drawn for place in places]
