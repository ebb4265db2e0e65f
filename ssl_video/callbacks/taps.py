"""What a part of a network gives in training, as it passes: nothing is computed twice, and the method is not asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_video.backbones.base import Backbone


class Tap:
    """Keeps a module's inputs and outputs of the forward passes that it learns from, by a forward hook.

    A method may call the module several times in a step. Passes in eval mode or without a gradient are others', such as
    an evaluation's. Momentum copies are other modules. What recomputes activations calls a backbone's parts again, not
    the backbone.

    Args:
        module: is watched until ``close``.

    Attributes:
        inputs: of each pass since ``clear``, without their gradient.
        outputs: of each pass, likewise.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._handle = module.register_forward_hook(self._passed)
        self._map: Any = None

    def _passed(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._keep(inputs[0], output)

    def _keep(self, given: Tensor, output: Tensor) -> None:
        if self.module.training and torch.is_grad_enabled():
            self.inputs.append(given.detach())
            self.outputs.append(output.detach())

    @property
    def watches_map(self) -> bool:
        """Whether the method was found to ask for ``feature_map`` alone."""
        return self._map is not None

    def watch_map(self) -> None:
        """Watches a backbone whose method asks for ``feature_map`` alone, which passes by all hooks."""
        if self._map is not None or not isinstance(self.module, Backbone):
            return
        self._map = own = self.module.feature_map

        def watched(clips: Tensor) -> Tensor:
            feature_map: Tensor = own(clips)
            self._keep(clips, feature_map.detach().mean(dim=(2, 3, 4)))
            return feature_map

        self.module.feature_map = watched  # type: ignore[method-assign]

    def clear(self) -> None:
        """Forgets what has passed."""
        self.inputs.clear()
        self.outputs.clear()

    def close(self) -> None:
        """Leaves the module as it was."""
        self._handle.remove()
        if self._map is not None:
            if getattr(self._map, "__self__", None) is self.module:  # its class's own
                del self.module.feature_map
            else:  # a compiled one, which had been put in its place
                self.module.feature_map = self._map
            self._map = None
        self.clear()
