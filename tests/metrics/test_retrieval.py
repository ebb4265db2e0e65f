from math import comb

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

from ssl_video.metrics.knn import nearest
from ssl_video.metrics.retrieval import rank_gallery, recall_hits
from support.tensors import LargestTensor


def recall(first_hit: torch.Tensor, k: int) -> float:
    return float(recall_hits(first_hit, k=k).double().mean())


def test_four_queries_by_three_gallery_rows_by_hand() -> None:
    gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    gallery_labels = torch.tensor([0, 1, 0])
    queries = torch.tensor([[2.0, 1.0], [1.0, 2.0], [-3.0, 1.0], [0.0, 5.0]])
    query_labels = torch.tensor([0, 0, 1, 2])
    # Places by cosine: (0, 1, 2), (1, 0, 2), (2, 1, 0), (1, then the tie 0 before 2).
    ranking = rank_gallery(queries, query_labels, gallery, gallery_labels)
    assert ranking.first_hit.tolist() == [1, 2, 2, 4]  # class 2 is not in the gallery: a miss
    expected = [(1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2, 1 / 2, 0.0]
    np.testing.assert_allclose(ranking.average_precision.numpy(), expected)
    assert [recall(ranking.first_hit, k) for k in (1, 2, 3)] == [0.25, 0.75, 0.75]


def test_gallery_equal_to_the_queries_is_all_hits() -> None:
    features, labels = torch.randn(40, 8), torch.arange(40)
    ranking = rank_gallery(features, labels, features, labels)
    assert recall(ranking.first_hit, 1) == 1.0
    assert ranking.average_precision.tolist() == [1.0] * 40


def test_planted_clusters_are_all_hits() -> None:
    centres = torch.eye(5) * 10
    labels = torch.arange(5).repeat_interleave(8)
    gallery, queries = (centres[labels] + 0.1 * torch.randn(40, 5) for _ in range(2))
    ranking = rank_gallery(queries, labels, gallery, labels)
    assert recall(ranking.first_hit, 1) == 1.0
    assert ranking.average_precision.min() == 1.0


def test_random_labels_give_the_closed_form() -> None:
    num_gallery, num_queries, class_sizes = 200, 2000, [20, 60, 120]
    gallery_labels = torch.arange(3).repeat_interleave(torch.tensor(class_sizes))
    query_labels = torch.randint(3, (num_queries,))
    # Independent features per query leave the ranks of its class a uniform draw without replacement.
    ranking = rank_gallery(torch.randn(num_queries, 400), query_labels, torch.randn(num_gallery, 400), gallery_labels)
    for k in (1, 5, 10):
        miss = [comb(num_gallery - size, k) / comb(num_gallery, k) for size in class_sizes]
        expected = 1 - float(np.mean([miss[label] for label in query_labels.tolist()]))
        assert recall(ranking.first_hit, k) == pytest.approx(expected, abs=0.04)


def test_average_precision_equals_scikit_learn() -> None:
    queries, gallery = torch.randn(12, 6), torch.randn(30, 6)
    query_labels, gallery_labels = torch.randint(4, (12,)), torch.randint(4, (30,))
    ranking = rank_gallery(queries, query_labels, gallery, gallery_labels)
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], gallery[None], dim=2)
    for row in range(12):
        expected = average_precision_score((gallery_labels == query_labels[row]).numpy(), cosines[row].numpy())
        assert float(ranking.average_precision[row]) == pytest.approx(expected)


def test_result_does_not_depend_on_the_chunk_size() -> None:
    queries, gallery = torch.randn(33, 6), torch.randn(20, 6).repeat(3, 1)
    labels = torch.randint(4, (60,))
    sizes = (1, 2000, 20_000, 2**28)
    rankings = [
        rank_gallery(queries, labels[:33], gallery, labels, num_nearest=7, num_bytes=num_bytes) for num_bytes in sizes
    ]
    assert torch.equal(rankings[0].nearest, nearest(queries, gallery, k=7)[1])
    for ranking in rankings[1:]:
        assert torch.equal(ranking.first_hit, rankings[0].first_hit)
        assert torch.equal(ranking.average_precision, rankings[0].average_precision)
        assert torch.equal(ranking.nearest, rankings[0].nearest)


def test_no_tensor_is_larger_than_it_may_be() -> None:
    queries, gallery = torch.randn(300, 8), torch.randn(10_000, 8)
    query_labels, gallery_labels = torch.randint(4, (300,)), torch.randint(4, (10_000,))
    with LargestTensor() as watched:
        rank_gallery(queries, query_labels, gallery, gallery_labels, num_bytes=2**20)
    assert 10_000 * 8 < watched.num_bytes <= 2**20  # all similarities would take 12 MB


def test_own_video_is_no_part_of_the_ranking() -> None:
    features, labels, videos = torch.randn(40, 6), torch.randint(3, (40,)), torch.arange(40) // 2
    ranking = rank_gallery(features, labels, features, labels, videos=(videos, videos), num_nearest=5)
    cosines = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    for row in range(40):
        others = videos != videos[row]
        hits = (labels[others] == labels[row]).numpy()
        expected = average_precision_score(hits, cosines[row][others].numpy())
        assert float(ranking.average_precision[row]) == pytest.approx(expected)
        assert int(ranking.first_hit[row]) == 1 + int(hits[np.argsort(-cosines[row][others].numpy())].argmax())
        assert videos[row] not in videos[ranking.nearest[row]]


def test_class_of_the_own_video_alone_is_a_miss() -> None:
    features, labels = torch.eye(3), torch.tensor([0, 1, 1])
    ranking = rank_gallery(features, labels, features, labels, videos=(torch.arange(3), torch.arange(3)))
    assert ranking.first_hit.tolist()[0] == 4
    assert ranking.average_precision.tolist()[0] == 0.0


def test_mean_average_precision_equals_scikit_learn_label_ranking() -> None:
    queries, gallery = torch.randn(20, 6), torch.randn(50, 6)
    query_labels, gallery_labels = torch.randint(4, (20,)), torch.randint(4, (50,))
    ranking = rank_gallery(queries, query_labels, gallery, gallery_labels)
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], gallery[None], dim=2)
    relevant = gallery_labels[None] == query_labels[:, None]
    expected = label_ranking_average_precision_score(relevant.numpy(), cosines.numpy())
    assert float(ranking.average_precision.mean()) == pytest.approx(expected)


def test_labels_drawn_at_random_give_the_closed_form() -> None:
    classes, num_queries = 10, 4000
    ranking = rank_gallery(
        torch.randn(num_queries, 64),
        torch.randint(classes, (num_queries,)),
        torch.randn(300, 64),
        torch.arange(300) % classes,
    )
    for k in (1, 5, 20):
        # Balanced classes: nearly 1 - (1 - 1/C)^k, exactly the draw without replacement.
        expected = 1 - comb(270, k) / comb(300, k)
        assert expected == pytest.approx(1 - (1 - 1 / classes) ** k, abs=0.01)
        assert recall(ranking.first_hit, k) == pytest.approx(expected, abs=0.035)


def test_no_query_is_dropped() -> None:
    ranking = rank_gallery(torch.randn(37, 3), torch.zeros(37).long(), torch.randn(11, 3), torch.zeros(11).long())
    assert ranking.first_hit.shape == ranking.average_precision.shape == (37,)


def test_faulty_input_is_refused() -> None:
    with pytest.raises(ValueError, match="1 labels for 2 queries"):
        rank_gallery(torch.eye(2), torch.zeros(1).long(), torch.eye(2), torch.zeros(2).long())
    with pytest.raises(ValueError, match="k=0"):
        recall_hits(torch.ones(1), k=0)
