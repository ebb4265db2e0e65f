"""Which parameters the weight decay is for."""

from typing import Any

from torch import nn


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
