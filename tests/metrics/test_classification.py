import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from ssl_video.metrics.classification import balanced_accuracy, topk_hits


@pytest.mark.parametrize("k", [1, 2, 5])
def test_topk_equals_scikit_learn_where_scores_differ(k: int) -> None:
    scores, labels = torch.randn(50, 8), torch.randint(8, (50,))
    hits = topk_hits(scores, labels, k=k)
    assert float(hits.double().mean()) == pytest.approx(
        top_k_accuracy_score(labels.numpy(), scores.numpy(), k=k, labels=np.arange(8))
    )


def test_equal_scores_go_to_the_lower_class() -> None:
    scores = torch.zeros(4, 4)
    assert topk_hits(scores, torch.arange(4), k=2).tolist() == [True, True, False, False]


def test_minus_infinity_is_never_a_hit() -> None:
    scores = torch.tensor([[1.0, -torch.inf]]).expand(2, 2)
    assert topk_hits(scores, torch.tensor([0, 1]), k=5).tolist() == [True, False]


def test_balanced_accuracy_by_hand_and_by_scikit_learn() -> None:
    labels, predictions = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 0, 1, 1, 0, 2])
    assert balanced_accuracy(predictions, labels) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    expected = balanced_accuracy_score(labels.numpy(), predictions.numpy())
    assert balanced_accuracy(predictions, labels) == pytest.approx(expected)


def test_a_class_that_is_only_predicted_does_not_count() -> None:
    assert balanced_accuracy(torch.tensor([0, 3]), torch.tensor([0, 1])) == 0.5


@pytest.mark.parametrize(
    ("scores", "labels", "k", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(1).long(), 1, r"\[N, classes\]"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), 1, r"must lie in 0 \.\. 2"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), 1, "must lie in"),
        (torch.full((1, 3), torch.nan), torch.tensor([0]), 1, "NaN"),
        (torch.zeros(1, 3), torch.tensor([0]), 0, "k=0"),
    ],
)
def test_faulty_input_is_refused(scores: torch.Tensor, labels: torch.Tensor, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topk_hits(scores, labels, k=k)
