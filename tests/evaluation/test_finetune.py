from typing import Any

import pytest
import torch

from ssl_video.evaluation.finetune import Finetune
from ssl_video.modules.clip_classifier import ClipClassifier
from support.training import RECIPE, MadeClips, TinyNet

LABELS = [0, 1, 2] * 8


def trained(**settings: Any) -> ClipClassifier:
    """The classifier that a protocol has trained."""
    kept = []

    class Looked(Finetune):
        def make_classifier(self, backbone: Any, *, num_classes: int) -> ClipClassifier:
            kept.append(super().make_classifier(backbone, num_classes=num_classes))
            return kept[-1]

    Looked(**(RECIPE | settings))(TinyNet(), MadeClips(LABELS, LABELS), num_classes=3, device=torch.device("cpu"))
    return kept[0]


def test_every_tensor_of_the_backbone_moves() -> None:
    before, after = TinyNet().state_dict(), trained().backbone.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_a_backbone_with_a_rate_of_zero_keeps_its_weights() -> None:
    before, net = TinyNet(), trained(backbone_lr_factor=0.0)
    for name, value in net.backbone.named_parameters():
        assert torch.equal(dict(before.named_parameters())[name], value)


def test_lower_layers_move_less() -> None:
    def moved(**settings: Any) -> float:
        before, after = TinyNet(), trained(epochs=None, steps=1, **settings).backbone
        name = "layers.0.0.weight"
        return float((before.state_dict()[name] - after.state_dict()[name]).abs().max())

    # Two layers: the first one learns at a quarter of the rate.
    assert moved(layer_decay=0.5) == pytest.approx(moved() / 4, rel=1e-3)


def test_frozen_weights_of_a_checkpoint_learn_here() -> None:
    backbone = TinyNet().requires_grad_(False)
    net = Finetune(**RECIPE).make_classifier(backbone, num_classes=3)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_dropout_is_off_in_the_test_and_on_in_training() -> None:
    protocol = Finetune(**(RECIPE | {"dropout": 0.5}))
    net = protocol.make_classifier(TinyNet(), num_classes=3)
    protocol.prepare(net)
    assert net.dropout.training
    assert net.dropout.p == 0.5
    assert net.backbone.training
