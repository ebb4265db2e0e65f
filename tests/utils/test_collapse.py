import pytest
import torch

from ssl_video.utils.collapse import embedding_std


def test_a_filled_sphere_has_one_and_a_point_zero():
    assert float(embedding_std(torch.randn(4096, 64))) == pytest.approx(1.0, abs=0.02)
    assert float(embedding_std(torch.ones(16, 64))) == pytest.approx(0.0, abs=1e-6)


def test_length_does_not_matter_and_no_gradient_is_kept():
    embeddings = torch.randn(32, 8, requires_grad=True)
    value = embedding_std(embeddings)
    torch.testing.assert_close(embedding_std(5 * embeddings), value)
    assert not value.requires_grad
