import numpy as np
import pytest
import torch

from ssl_video.metrics.rank import effective_rank, rankme, singular_values


def entropy_rank(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (9, 9)])
def test_ranks_equal_the_definitions(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(size=shape) @ np.diag(np.linspace(0.1, 2, shape[1])) + 0.3
    deviations = np.linalg.svd(features, compute_uv=False)
    expected = entropy_rank(deviations / deviations.sum() + 1e-7)
    assert rankme(torch.from_numpy(features)) == pytest.approx(expected, rel=1e-9)
    variances = np.linalg.eigvalsh(np.cov(features.T)).clip(min=0)
    expected = entropy_rank(variances / variances.sum())
    assert effective_rank(torch.from_numpy(features)) == pytest.approx(expected, rel=1e-6)


def test_orthonormal_rows_have_the_rank_of_their_number() -> None:
    for number in (1, 4, 8):
        assert rankme(3 * torch.eye(8)[:number]) == pytest.approx(number, rel=1e-4)
    # Centred, n orthonormal rows span n - 1 dimensions evenly.
    assert effective_rank(torch.eye(8)[:5]) == pytest.approx(4)


def test_rows_on_one_line_have_rank_one_and_equal_rows_no_variance() -> None:
    line = torch.arange(1.0, 21)[:, None] * torch.randn(1, 30)
    assert rankme(line) == pytest.approx(1, abs=1e-3)
    assert effective_rank(line) == pytest.approx(1, abs=1e-6)
    same = torch.randn(1, 30).expand(20, 30)
    assert rankme(same) == pytest.approx(1, abs=1e-3)
    assert effective_rank(same) == 0.0


def test_rounding_of_float32_is_no_variance() -> None:
    collapsed = torch.randn(1, 64) + 1e-8 * torch.randn(200, 64)
    assert effective_rank(collapsed) == 0.0
    assert effective_rank(torch.randn(1, 64) + 1e-3 * torch.randn(200, 64)) > 40


def test_known_spectrum() -> None:
    # Two axes with variances 9 and 1: the entropy of (0.9, 0.1).
    features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert effective_rank(features) == pytest.approx(np.exp(-0.9 * np.log(0.9) - 0.1 * np.log(0.1)))
    assert rankme(features) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)), rel=1e-5)


def test_length_of_the_features_does_not_matter() -> None:
    features = torch.randn(30, 5) + 1
    assert rankme(1000 * features) == pytest.approx(rankme(features))
    assert effective_rank(1000 * features) == pytest.approx(effective_rank(features))


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 1000])
@pytest.mark.parametrize("shape", [(100, 8), (20, 50)])
def test_chunks_keep_the_spectrum_down_to_its_smallest_values(shape: tuple[int, int], chunk_size: int) -> None:
    features = torch.randn(shape, dtype=torch.float64)
    features[:, 1] = features[:, 0] + 1e-11 * features[:, 1]
    expected = np.linalg.svd(features.numpy(), compute_uv=False)
    found = singular_values(features, chunk_size=chunk_size).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_faulty_input_is_refused() -> None:
    for metric in (rankme, effective_rank):
        with pytest.raises(ValueError, match=r"must be \[N, D\]"):
            metric(torch.ones(0, 4))
        with pytest.raises(ValueError, match="not finite"):
            metric(torch.full((3, 2), torch.nan))
    with pytest.raises(ValueError, match="all features are 0"):
        rankme(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="chunk_size=0"):
        singular_values(torch.eye(2), chunk_size=0)
