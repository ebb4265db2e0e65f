"""How the weights of convolutions lie in memory."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

MemoryFormat = Literal["channels_last", "contiguous"]


def lay_out(backbone: nn.Module, memory_format: MemoryFormat) -> None:
    """Puts the weights of convolutions in a memory format, which their outputs then have too.

    Layer by layer, as torch refuses either format for a network with weights of the other's dimensions.
    """
    last = memory_format == "channels_last"
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv3d):
            layer.to(memory_format=torch.channels_last_3d if last else torch.contiguous_format)
        elif isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last if last else torch.contiguous_format)
