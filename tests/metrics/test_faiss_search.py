import numpy as np
import pytest
import torch

from ssl_video.metrics.faiss_search import nearest_by_faiss
from ssl_video.metrics.knn import nearest

pytest.importorskip("faiss", reason="needs the faiss extra: pip install 'ssl_video[faiss]'")


def test_finds_what_the_exact_search_finds() -> None:
    queries, gallery = torch.randn(60, 16), torch.randn(700, 16)
    expected = nearest(queries, gallery, k=12)
    similarities, rows = nearest_by_faiss(queries, gallery, k=12)
    torch.testing.assert_close(similarities, expected[0], atol=1e-6, rtol=0)
    # Places may be changed only by neighbours as near as float32 can tell.
    changed = rows != expected[1]
    assert changed.double().mean() < 0.01
    torch.testing.assert_close(similarities[changed], expected[0][changed], atol=1e-6, rtol=0)


def test_equally_near_neighbours_come_in_gallery_order() -> None:
    gallery = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [5.0, 0.0]])
    assert nearest_by_faiss(torch.tensor([[1.0, 0.0]]), gallery, k=5)[1].tolist() == [[1, 2, 4, 0, 3]]


def test_own_video_is_never_found() -> None:
    features, videos = torch.randn(40, 8), torch.arange(40) // 4
    expected = nearest(features, features, k=5, videos=(videos, videos))
    found = nearest_by_faiss(features, features, k=5, videos=(videos, videos))
    assert torch.equal(found[1], expected[1])
    assert not bool((videos[found[1]] == videos[:, None]).any())


def test_features_may_be_arrays() -> None:
    gallery = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    assert nearest_by_faiss(gallery, gallery, k=1)[1][:, 0].tolist() == list(range(30))


def test_faulty_input_is_refused() -> None:
    features, videos = torch.randn(4, 3), torch.zeros(4).long()
    with pytest.raises(ValueError, match=r"k=5 must lie in 1 \.\. 4"):
        nearest_by_faiss(features, features, k=5)
    with pytest.raises(ValueError, match=r"k=1 must lie in 1 \.\. 0"):
        nearest_by_faiss(features, features, k=1, videos=(videos, videos))
    with pytest.raises(ValueError, match="gallery hold features that are not finite"):
        nearest_by_faiss(features, torch.full((4, 3), torch.inf), k=1)
