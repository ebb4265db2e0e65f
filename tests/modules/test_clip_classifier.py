import pytest
import torch
from torch import nn

from ssl_video.modules.clip_classifier import ClipClassifier
from support.training import TinyNet


def classifier(**settings: object) -> ClipClassifier:
    torch.manual_seed(0)
    return ClipClassifier(TinyNet(), feature_dim=8, num_classes=3, **settings).eval()  # type: ignore[arg-type]


def test_logits_are_a_linear_map_of_the_features() -> None:
    net, clips = classifier(), torch.randn(5, 3, 2, 4, 4)
    features = net.backbone(clips)
    expected = features.detach().numpy() @ net.linear.weight.detach().numpy().T + net.linear.bias.detach().numpy()
    assert net(clips).detach().numpy() == pytest.approx(expected, abs=1e-6)


def test_unit_length_takes_out_the_scale() -> None:
    net, features = classifier(feature_norm="l2"), torch.rand(5, 8)
    torch.testing.assert_close(net.classify(features), net.classify(7.0 * features))
    assert not torch.allclose(classifier().classify(features), classifier().classify(7.0 * features))


def test_batch_norm_takes_out_scale_and_mean_of_the_batch() -> None:
    net = classifier(feature_norm="batch_norm").train()
    features = torch.rand(64, 8)
    torch.testing.assert_close(net.classify(features), net.classify(100.0 * features + 5.0), atol=1e-3, rtol=1e-3)
    assert [name for name, _ in net.named_parameters() if name.startswith("batch_norm")] == []


@pytest.mark.parametrize("dropout_of", ["clip", "time"])
def test_dropout_of_clip_and_of_time_are_the_same_in_the_test(dropout_of: str) -> None:
    clips = torch.randn(5, 3, 2, 4, 4)
    torch.testing.assert_close(classifier(dropout=0.5, dropout_of=dropout_of)(clips), classifier()(clips))


def test_dropout_of_time_draws_for_each_time() -> None:
    net = classifier(dropout=0.5, dropout_of="time").train()
    net.backbone.eval()
    seen: list[torch.Size] = []
    net.dropout.register_forward_hook(lambda module, given, result: seen.append(result.shape))
    net(torch.randn(5, 3, 2, 4, 4))
    assert seen == [torch.Size([5, 2, 8])]


def test_first_weights_have_the_deviation_asked_for() -> None:
    torch.manual_seed(0)
    net = ClipClassifier(nn.Identity(), feature_dim=1000, num_classes=10, init_std=0.01)
    assert float(net.linear.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert net.linear.bias.detach().abs().max() == 0


@pytest.mark.parametrize(
    "settings", [{"dropout_of": "frame"}, {"feature_norm": "l1"}, {"dropout_of": "time", "feature_norm": "l2"}]
)
def test_faulty_settings_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"must be|which is of"):
        classifier(**settings)
