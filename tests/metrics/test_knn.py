import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ssl_video.metrics.knn import knn_scores, nearest, rows_per_block
from support.tensors import LargestTensor


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


@pytest.mark.parametrize("neighbours", [7, 11])
def test_scores_equal_scikit_learn(neighbours: int) -> None:
    rng = np.random.default_rng(1)
    queries, gallery, labels = rng.normal(size=(40, 6)), rng.normal(size=(90, 6)), rng.integers(0, 5, size=90)
    # Its distance is 1 - cosine, and its weights are normalised over the classes, too.
    theirs = KNeighborsClassifier(neighbours, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    scores = knn_scores(
        torch.from_numpy(queries),
        torch.from_numpy(gallery),
        torch.from_numpy(labels),
        num_classes=5,
        k=neighbours,
        temperature=0.07,
    )
    np.testing.assert_allclose(scores.numpy(), theirs.fit(gallery, labels).predict_proba(queries), atol=1e-5)


def whole_matrix(queries: torch.Tensor, gallery: torch.Tensor, *, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All similarities at once, in float64 rounded to float32, sorted whole."""
    units = [side.double() / side.double().norm(dim=1, keepdim=True) for side in (queries, gallery)]
    similarities = (units[0] @ units[1].T).float()
    found = torch.sort(similarities, dim=1, descending=True, stable=True)
    return found.values[:, :k], found.indices[:, :k]


@pytest.mark.parametrize("block_size", [2, 7, 64, 1000, None])
@pytest.mark.parametrize("k", [1, 9, 90])
def test_result_does_not_depend_on_the_block_size(block_size: int | None, k: int) -> None:
    queries, gallery = torch.randn(20, 16), torch.randn(90, 16)
    gallery[50:70] = gallery[:20]  # equally near neighbours, too, in other blocks
    gallery[70:80] = gallery[0]
    queries[0] = gallery[0]
    expected = whole_matrix(queries, gallery, k=k)
    found = nearest(queries, gallery, k=k, block_size=block_size)
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0], expected[0])


def test_features_may_lie_in_a_file(tmp_path: Path) -> None:
    queries, gallery = torch.randn(5, 4), torch.randn(60, 4)
    np.save(tmp_path / "gallery.npy", gallery.numpy())
    stored = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    assert isinstance(stored, np.memmap)
    for side in (stored, gallery.half(), gallery.double()):
        assert torch.equal(nearest(queries, side, k=3, block_size=7)[1], nearest(queries, gallery, k=3)[1])


@pytest.mark.parametrize("ids", [False, True])
def test_no_tensor_grows_with_the_gallery(ids: bool) -> None:
    made = []
    for size in (500, 10_000):
        queries, gallery = torch.randn(100, 8), torch.randn(size, 8)
        videos = (torch.arange(100), torch.arange(size, dtype=torch.int32)) if ids else None
        with LargestTensor() as watched:
            nearest(queries, gallery, k=10, videos=videos, block_size=100)
        made.append(watched.num_bytes)
    # Numbers of videos are ranked as a whole; they are 8 bytes each, not 8 for each of D.
    assert made[0] == 100 * 100 * 8
    assert made[1] == (10_000 * 8 if ids else made[0])


@pytest.mark.parametrize("dim", [1, 64, 512, 9216])
def test_default_blocks_take_what_they_may(dim: int) -> None:
    size = rows_per_block(dim)
    assert 32 * size * (size + dim) <= 2**28 < 32 * (size + 1) * (size + 1 + dim)
    assert rows_per_block(10**9) == 1


PEAK_OF_A_SEARCH = """
import sys
import numpy as np, torch
from ssl_video.metrics.knn import nearest
from ssl_video.metrics.retrieval import rank_gallery

def peak():  # not ru_maxrss, which a process inherits from the one that started it
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

gallery = np.load(sys.argv[1], mmap_mode="r")
queries, labels = torch.randn(1500, gallery.shape[1]), torch.arange(1500) % 7
nearest(queries[:2], gallery[:100], k=5)
before = peak()
nearest(queries, gallery, k=20)
rank_gallery(queries[:40], labels[:40], gallery, torch.arange(len(gallery)) % 7)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc/self/status")
def test_peak_memory_is_bounded(tmp_path: Path) -> None:
    np.save(tmp_path / "gallery.npy", np.random.default_rng(0).normal(size=(200_000, 64)).astype(np.float32))
    command = [sys.executable, "-c", PEAK_OF_A_SEARCH, str(tmp_path / "gallery.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    # Two budgets of 256 MiB and the file's own 51 MB; all pairs at once would take 3.6 GB.
    assert 2**20 < int(done.stdout) < 2.5 * 2**28


def test_query_that_is_in_the_gallery_finds_itself_first() -> None:
    features = torch.randn(30, 8)
    assert nearest(features, features, k=1)[1][:, 0].tolist() == list(range(30))
    scores = knn_scores(features, features, torch.arange(30), num_classes=30, k=1, temperature=0.07)
    assert scores.argmax(dim=1).tolist() == list(range(30))


@pytest.mark.parametrize("block_size", [1, 4, None])
def test_query_never_finds_its_own_video_where_videos_are_named(block_size: int | None) -> None:
    features, videos = torch.randn(12, 8), torch.arange(12) // 3  # four videos of three clips
    similarities, rows = nearest(features, features, k=9, videos=(videos, videos), block_size=block_size)
    assert torch.isfinite(similarities).all()
    for query, found in enumerate(rows.tolist()):
        assert sorted(found) == [row for row in range(12) if row // 3 != query // 3]
    # Videos of the queries alone leave nothing out.
    assert nearest(features, features, k=1, videos=(videos + 4, videos))[1][:, 0].tolist() == list(range(12))


def test_what_is_left_without_the_own_video_bounds_k() -> None:
    features, videos = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 2, 3])
    nearest(features, features, k=3, videos=(videos, videos))
    with pytest.raises(ValueError, match=r"k=4 must lie in 1 \.\. 3, the size of the gallery without"):
        nearest(features, features, k=4, videos=(videos, videos))


@pytest.mark.gpu
def test_search_on_a_gpu_finds_what_it_finds_on_a_cpu() -> None:
    queries, gallery = torch.randn(300, 64), torch.randn(5000, 64)
    expected = nearest(queries, gallery, k=20)
    for stored in (gallery, gallery.numpy(), gallery.cuda()):
        found = nearest(queries.cuda(), stored, k=20, block_size=128)
        assert found[1].is_cuda
        assert torch.equal(found[1].cpu(), expected[1])
        assert torch.equal(found[0].cpu(), expected[0])


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
        ({"block_size": 0}, "block_size=0"),
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
