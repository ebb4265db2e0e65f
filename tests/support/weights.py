"""Weights that are the same on every machine, and files of state dicts."""

from pathlib import Path
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def fill(network: nn.Module) -> None:
    """Give each parameter values that follow from its place and its elements' places alone; scales lie around 1."""
    for place, (name, parameter) in enumerate(network.named_parameters()):
        angles = torch.arange(parameter.numel(), dtype=torch.float64) ** 1.7 + place
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        parameter.copy_((0.3 * angles.cos() + float(is_scale)).view_as(parameter))


def saved(content: Any, folder: Path, name: str = "weights.pth") -> Path:
    """Write by torch.save and return the path."""
    torch.save(content, folder / name)
    return folder / name
