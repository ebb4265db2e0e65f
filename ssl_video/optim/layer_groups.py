"""Learning rates by depth: layers near the input move less, and a new classifier may move more."""

from typing import Any

from torch import nn

NamedParameters = list[tuple[str, nn.Parameter]]


def layers_of(backbone: nn.Module) -> list[NamedParameters]:
    """The backbone's parameters from input to output, one list of (name, parameter) per layer.

    Layers are the modules the backbone is put together from, in the order in which it holds them; of a
    ``Sequential`` or a ``ModuleList`` each member is one (the blocks of a stage, of a transformer). What has only
    one-dimensional parameters, a norm, belongs to the layer before it; the backbone's own parameters, such as a class
    token, belong to the first.
    """
    prefix, module = "", backbone
    while not list(module.parameters(recurse=False)) and len(_children(module)) == 1:
        name, module = _children(module)[0]
        prefix += f"{name}."
    parts: list[NamedParameters] = []
    for name, child in _children(module):
        members = _children(child) if isinstance(child, nn.Sequential | nn.ModuleList) else [("", child)]
        for inner, member in members:
            path = f"{prefix}{name}.{inner}." if inner else f"{prefix}{name}."
            parts.append([(f"{path}{own}", parameter) for own, parameter in member.named_parameters()])
    layers: list[NamedParameters] = [[(f"{prefix}{name}", own) for name, own in module.named_parameters(recurse=False)]]
    begun = False  # whether the first layer has a part of its own yet
    for part in parts:
        if begun and any(parameter.ndim > 1 for _, parameter in part):
            layers.append(part)
        else:
            layers[-1] += part
        begun = True
    return layers


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in module.named_children() if next(child.parameters(), None) is not None]


def layer_groups(
    backbone: nn.Module,
    classifier: nn.Module,
    *,
    layer_decay: float = 1.0,
    backbone_lr_factor: float = 1.0,
    bias_lr_factor: float = 1.0,
    classifier_lr_factor: float = 1.0,
    classifier_bias_lr_factor: float = 1.0,
    decay_all: bool = False,
) -> list[dict[str, Any]]:
    """Parameter groups of a network and the classifier on top of it, each at its share of the learning rate.

    The classifier's share is 1 and that of the last of L layers ``layer_decay``, of the one before it
    ``layer_decay ** 2``, down to ``layer_decay ** L`` at the input, as in the code of BEiT (Bao et al., ICLR 2022) and
    MAE (He et al., CVPR 2022). Frozen parameters are left out.

    Args:
        backbone: see ``layers_of``.
        classifier: what lies on top.
        layer_decay: factor from one layer to the one below it; 1 for none.
        backbone_lr_factor: of all layers, besides.
        bias_lr_factor: of the backbone's biases besides (not those of norms); Caffe's models and TSN have 2.
        classifier_lr_factor: of the classifier's weights.
        classifier_bias_lr_factor: of its biases.
        decay_all: weight decay on biases and norms too.

    Returns:
        Groups with an ``lr_factor``, for ``apply_lr_factors``, one per combination of factor and decay, in order.
    """
    norms = _norm_parameters(backbone)
    layers = layers_of(backbone)
    shares: list[tuple[nn.Parameter, float]] = []
    for place, layer in enumerate(layers):
        factor = backbone_lr_factor * layer_decay ** (len(layers) - place)
        for name, parameter in layer:
            is_bias = _is_bias(name) and id(parameter) not in norms
            shares.append((parameter, factor * (bias_lr_factor if is_bias else 1.0)))
    for name, parameter in classifier.named_parameters():
        shares.append((parameter, classifier_bias_lr_factor if _is_bias(name) else classifier_lr_factor))
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for parameter, factor in shares:
        if not parameter.requires_grad:
            continue
        decayed = decay_all or parameter.ndim > 1
        group = groups.setdefault(
            (factor, decayed), {"params": [], "lr_factor": factor, **({} if decayed else {"weight_decay": 0.0})}
        )
        group["params"].append(parameter)
    return list(groups.values())


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2] == "bias"


def _norm_parameters(module: nn.Module) -> set[int]:
    """Identities of the parameters of norms: modules whose weight has one dimension."""
    own = [dict(part.named_parameters(recurse=False)) for part in module.modules()]
    norms = [parameters for parameters in own if "weight" in parameters and parameters["weight"].ndim == 1]
    return {id(parameter) for parameters in norms for parameter in parameters.values()}
