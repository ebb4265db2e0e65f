import pytest
import torch

from ssl_video.losses.neg_cosine import neg_cosine
from support.methods import attach, build_method, random_batch


@pytest.mark.parametrize("num_views", [2, 3])
def test_every_clip_predicts_every_other(num_views: int) -> None:
    method, config = build_method("byol", f"sampler.num_views={num_views}")
    method.eval()
    views = (batch := random_batch(config)).clips.unbind(1)
    loss = method.losses(batch)["neg_cosine"]
    predictions = [method.predictor(method.online_encoder(clips)) for clips in views]  # type: ignore[operator]
    targets = [method.target_encoder(clips) for clips in views]  # type: ignore[operator]
    expected = [neg_cosine(predictions[i], targets[j]) for i in range(num_views) for j in range(num_views) if i != j]
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    assert -2.0 <= loss.item() <= 2.0


def test_perfect_agreement_is_minus_two() -> None:
    """A predictor that changes nothing, equal clips, and a target that is the network itself."""
    method, config = build_method("byol")
    method.eval()
    method.predictor = torch.nn.Identity()
    batch = random_batch(config)
    batch.clips[:, 1] = batch.clips[:, 0]
    assert method.losses(batch)["neg_cosine"].item() == pytest.approx(-2.0, abs=1e-5)


def test_momentum_rises_to_one() -> None:
    method, _ = build_method("byol", "method.momentum=0.996")
    rises = [method.target_encoder.momentum_at(step, 100) for step in (0, 25, 50, 75, 100)]  # type: ignore[operator,union-attr]
    assert rises == pytest.approx([0.996, 0.9965858, 0.998, 0.9994142, 1.0], abs=1e-7)


def test_targets_are_made_after_the_target_network_moved() -> None:
    method, config = build_method("byol", "method.momentum=0.0", "method.momentum_schedule=constant")
    method.eval()
    method.predictor = torch.nn.Identity()
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(0.05)
    batch = random_batch(config)
    batch.clips[:, 1] = batch.clips[:, 0]
    attach(method, global_step=5)
    assert method.losses(batch)["neg_cosine"].item() == pytest.approx(-2.0, abs=1e-5)
