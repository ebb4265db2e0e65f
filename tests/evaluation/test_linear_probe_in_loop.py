from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import SGD

from ssl_video.evaluation.features import ProtocolResult
from ssl_video.evaluation.linear_probe_in_loop import LinearProbeInLoop
from ssl_video.modules.clip_classifier import ClipClassifier
from support.training import RECIPE, MadeClips, TinyNet

LABELS = [0, 1, 2] * 8


def trained(**settings: Any) -> tuple[ClipClassifier, ProtocolResult]:
    """The classifier that a protocol has trained, and its result."""
    kept = []

    class Looked(LinearProbeInLoop):
        def make_classifier(self, backbone: Any, *, num_classes: int) -> ClipClassifier:
            kept.append(super().make_classifier(backbone, num_classes=num_classes))
            return kept[-1]

    protocol = Looked(**(RECIPE | settings))
    result = protocol(TinyNet(), MadeClips(LABELS, LABELS), num_classes=3, device=torch.device("cpu"))
    return kept[0], result


def test_no_bit_of_the_backbone_changes() -> None:
    before = deepcopy(TinyNet().state_dict())
    net, result = trained()
    after = net.backbone.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert "layers.0.1.running_mean" in before
    assert result.settings["bn_mode"] == "eval"
    assert net.linear.weight.detach().abs().max() > 0.1


def test_batch_norm_in_training_moves_its_statistics_and_nothing_else() -> None:
    before = deepcopy(TinyNet().state_dict())
    net, result = trained(bn_mode="train")
    after = net.backbone.state_dict()
    changed = {name.rpartition(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    assert result.settings["bn_mode"] == "train"


def test_batch_norm_mode_changes_what_is_learnt() -> None:
    assert trained()[1].details != trained(bn_mode="train")[1].details


def test_dropout_of_the_backbone_is_never_on() -> None:
    protocol = LinearProbeInLoop(**(RECIPE | {"bn_mode": "train", "dropout": 0.5}))
    backbone = TinyNet()
    backbone.layers.append(torch.nn.Dropout(0.5))
    net = protocol.make_classifier(backbone, num_classes=3)
    protocol.prepare(net)
    assert not backbone.layers[-1].training
    assert backbone.layers[0][1].training  # type: ignore[index]
    assert net.dropout.training


# Without a norm the learning rate has to fit the size of the features.
@pytest.mark.parametrize(("feature_norm", "lr"), [("none", 0.3), ("l2", 1.0), ("batch_norm", 0.1)])
def test_feature_norms_learn_and_stand_in_the_settings(feature_norm: str, lr: float) -> None:
    _, result = trained(feature_norm=feature_norm, optimizer=partial(SGD, lr=lr, momentum=0.9), epochs=40.0)
    assert result.settings["feature_norm"] == feature_norm
    assert result.metrics["top1"] > 0.9


def test_only_the_layer_is_given_to_the_optimizer() -> None:
    protocol = LinearProbeInLoop(**RECIPE)
    net = protocol.make_classifier(TinyNet(), num_classes=3)
    groups = protocol.parameter_groups(net)
    assert [id(p) for group in groups for p in group["params"]] == [id(net.linear.weight), id(net.linear.bias)]
    assert groups[1]["weight_decay"] == 0.0


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="bn_mode='frozen'"):
        LinearProbeInLoop(**RECIPE, bn_mode="frozen")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="feature_norm='l1'"):
        trained(feature_norm="l1")
