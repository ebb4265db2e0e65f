from typing import Any

import numpy as np
import pytest
import torch

from ssl_video.metrics.knn import knn_scores, nearest


def oracle_scores(
    queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray, *, num_classes: int, k: int, temperature: float
) -> np.ndarray:
    """Loop over the definition: cosine, k nearest, weights exp(cosine / temperature), shares."""
    scores = np.zeros((len(queries), num_classes))
    for row, query in enumerate(queries):
        cosines = [query @ other / np.linalg.norm(query) / np.linalg.norm(other) for other in gallery]
        for neighbour in np.argsort([-cosine for cosine in cosines], kind="stable")[:k]:
            scores[row, labels[neighbour]] += np.exp(cosines[neighbour] / temperature)
    return scores / scores.sum(axis=1, keepdims=True)


def test_scores_equal_the_definition() -> None:
    rng = np.random.default_rng(0)
    queries, gallery, labels = rng.normal(size=(7, 5)), rng.normal(size=(23, 5)), rng.integers(0, 4, size=23)
    scores = knn_scores(
        torch.from_numpy(queries),
        torch.from_numpy(gallery),
        torch.from_numpy(labels),
        num_classes=4,
        k=6,
        temperature=0.2,
    )
    np.testing.assert_allclose(
        scores.numpy(), oracle_scores(queries, gallery, labels, num_classes=4, k=6, temperature=0.2), atol=1e-6
    )


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 1000])
def test_result_does_not_depend_on_the_chunk_size(chunk_size: int) -> None:
    queries, gallery = torch.randn(50, 16), torch.randn(200, 16)
    gallery[100:150] = gallery[:50]  # equally near neighbours, too
    expected = nearest(queries, gallery, k=9, chunk_size=50)
    found = nearest(queries, gallery, k=9, chunk_size=chunk_size)
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0], expected[0])


def test_equally_near_neighbours_come_in_gallery_order() -> None:
    gallery = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [5.0, 0.0]])
    similarities, rows = nearest(torch.tensor([[1.0, 0.0]]), gallery, k=4)
    assert rows.tolist() == [[1, 2, 4, 0]]
    assert similarities.tolist() == [[1.0, 1.0, 1.0, 0.0]]
    # The tie at the edge: of three equal ones the first two are taken.
    assert nearest(torch.tensor([[1.0, 0.0]]), gallery, k=2)[1].tolist() == [[1, 2]]


def test_length_of_the_features_does_not_matter() -> None:
    queries, gallery = torch.randn(5, 4), torch.randn(9, 4)
    scaled = nearest(queries * 7, gallery * torch.rand(9, 1).add(0.1), k=3)
    assert torch.equal(scaled[1], nearest(queries, gallery, k=3)[1])


def test_low_temperatures_do_not_overflow() -> None:
    queries, gallery = torch.eye(3), torch.eye(3)
    scores = knn_scores(queries, gallery, torch.arange(3), num_classes=3, k=3, temperature=1e-4)
    torch.testing.assert_close(scores, torch.eye(3, dtype=torch.float64))


def test_classes_without_a_vote_score_exactly_nothing() -> None:
    scores = knn_scores(torch.eye(3), torch.eye(3), torch.arange(3), num_classes=5, k=1, temperature=0.07)
    assert (scores == torch.eye(3, 5, dtype=torch.float64)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 4}, r"k=4 must lie in 1 \.\. 3"),
        ({"k": 0}, "k=0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"num_classes": 2}, "num_classes=2"),
        ({"queries": torch.full((2, 3), torch.nan)}, "not finite"),
        ({"queries": torch.zeros(2, 4)}, r"must be \[Q, D\] and \[G, D\]"),
        ({"queries": torch.zeros(0, 3)}, "0 queries"),
        ({"gallery_labels": torch.arange(2)}, "2 labels for 3"),
        ({"chunk_size": 0}, "chunk_size=0"),
    ],
)
def test_faulty_input_is_refused(change: dict[str, Any], message: str) -> None:
    fitting: dict[str, Any] = {
        "queries": torch.eye(3),
        "gallery": torch.eye(3),
        "gallery_labels": torch.arange(3),
        "num_classes": 3,
        "k": 1,
        "temperature": 0.07,
    }
    knn_scores(**fitting)
    with pytest.raises(ValueError, match=message):
        knn_scores(**(fitting | change))
