import pytest
import torch

from ssl_video.modules.prototypes import Prototypes


def test_scores_are_cosines_with_unit_prototypes():
    prototypes = Prototypes(5, 7)
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(7))
    embeddings = torch.randn(4, 5)
    scores = prototypes(3.0 * embeddings)
    expected = torch.nn.functional.cosine_similarity(embeddings[:, None], prototypes.weight[None], dim=2)
    torch.testing.assert_close(scores, expected)
    assert [name for name, _ in prototypes.named_parameters()] == ["weight"]


def test_renormalise_keeps_directions_and_the_gradient_path():
    prototypes = Prototypes(5, 7)
    before = prototypes.weight.detach().clone()
    with torch.no_grad():
        prototypes.weight.mul_(torch.linspace(0.5, 3.0, 7)[:, None])
    prototypes.renormalise()
    torch.testing.assert_close(prototypes.weight.detach(), before)
    prototypes(torch.randn(4, 5)).sum().backward()
    assert prototypes.weight.grad.abs().sum() > 0


def test_one_prototype_is_refused():
    with pytest.raises(ValueError, match="num_prototypes=1"):
        Prototypes(5, 1)
