"""Which parameters the weight decay is for, and which learn at another rate."""

from typing import Any

from torch import nn
from torch.optim import Optimizer


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Split the trainable parameters into those with weight decay and those without.

    Biases and one-dimensional parameters (the weights of norms) get none: to shrink them does not limit what the
    network can express. Frozen parameters, such as a momentum encoder's, are left out.

    Args:
        module: whose parameters are split.

    Returns:
        Groups for a torch optimizer, those that would be empty left out; the first takes the optimizer's decay.
    """
    trainable = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in trainable if parameter.ndim > 1 and not name.endswith("bias")]
    others = [parameter for name, parameter in trainable if parameter.ndim <= 1 or name.endswith("bias")]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def classifier_groups(
    backbone: nn.Module,
    classifier: nn.Module,
    *,
    bias_lr_factor: float,
    classifier_lr_factor: float,
    classifier_bias_lr_factor: float,
) -> list[dict[str, Any]]:
    """Groups of a network whose classifier learns faster than its backbone, as in the code of TSN, TSM and TCL.

    Weights are decayed; biases and both parameters of a norm are not. Norms learn at the backbone's rate.

    Args:
        backbone: starts from weights, or is deep; its weights learn at the optimizer's rate.
        classifier: what lies on top.
        bias_lr_factor: of the backbone's biases (not those of norms).
        classifier_lr_factor: of the classifier's weights.
        classifier_bias_lr_factor: of its biases.

    Returns:
        Groups with an ``lr_factor``, for ``apply_lr_factors``; those that would be empty are left out.
    """
    decayed: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for module in backbone.modules():
        own = {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad}
        is_norm = "weight" in own and own["weight"].ndim == 1
        for name, parameter in own.items():
            if parameter.ndim > 1:
                decayed.append(parameter)
            else:
                (biases if name == "bias" and not is_norm else norms).append(parameter)
    weights = [p for p in classifier.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in classifier.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "lr_factor": 1.0},
        {"params": norms, "lr_factor": 1.0, "weight_decay": 0.0},
        {"params": biases, "lr_factor": bias_lr_factor, "weight_decay": 0.0},
        {"params": weights, "lr_factor": classifier_lr_factor},
        {"params": others, "lr_factor": classifier_bias_lr_factor, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def apply_lr_factors(optimizer: Optimizer) -> Optimizer:
    """Multiplies the learning rate of each group by its ``lr_factor``, where it has one, and returns the optimizer."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_factor", 1.0)
    return optimizer
