"""SGD whose step is relative to the size of each weight tensor, for large batches.

Ours because torch has none, and what does would bring more than these lines: timm's sits in a package that imports its
models and a download client, and takes the weight decay of a parameter group as the sign to scale it.
"""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling of SGD.

    Each tensor w with gradient g moves along d = λ (g + weight_decay · w), where
    λ = trust_coefficient · ‖w‖ / (‖g‖ + weight_decay · ‖w‖), or 1 where either norm is 0. Momentum gathers d, without
    the learning rate, as in torch's SGD. One-dimensional parameters (biases, the weights of norms) are neither scaled
    nor decayed: they move by plain SGD.

    Source: You et al., "Large Batch Training of Convolutional Networks", arXiv 1708.03888, in the form of the
    self-supervised literature (Feichtenhofer et al., CVPR 2021, released code). MoCo v3's code divides by
    ‖g + weight_decay · w‖ instead, the same to some millionths at its decay.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        momentum: of SGD.
        nesterov: look ahead by one step of momentum.
        weight_decay: L2 penalty, of tensors with two dimensions or more.
        trust_coefficient: length of a step relative to ‖w‖, at a learning rate of 1 and without momentum.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        numbers = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
        }
        for name, number in numbers.items():
            if not number >= 0:
                raise ValueError(f"{name}={number} must be 0 or more.")
        if nesterov and momentum == 0:
            raise ValueError("nesterov=True looks ahead along the momentum; set momentum above 0 or nesterov=False.")
        super().__init__(params, {**numbers, "nesterov": nesterov})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient once.

        Args:
            closure: computes the loss and the gradients anew, and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved:
                self._move(moved, group)
        return loss

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Moves them all by the same few operations, each of which is one kernel for all on a GPU."""
        directions = _directions(parameters, group)
        momentum = group["momentum"]
        if momentum > 0:
            for parameter in parameters:
                if "momentum_buffer" not in self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            gathered = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
            torch._foreach_mul_(gathered, momentum)
            torch._foreach_add_(gathered, directions)
            directions = (
                list(torch._foreach_add(directions, gathered, alpha=momentum)) if group["nesterov"] else gathered
            )
        torch._foreach_add_(parameters, directions, alpha=-group["lr"])


def _directions(parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Each gradient; that of a tensor with two dimensions or more with decay, and scaled to the tensor's size."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    places = [place for place, parameter in enumerate(parameters) if parameter.ndim > 1]
    if not places:
        return gradients
    weights, slopes = [parameters[place] for place in places], [gradients[place] for place in places]
    decay = group["weight_decay"]
    size, slope = torch.stack(list(torch._foreach_norm(weights))), torch.stack(list(torch._foreach_norm(slopes)))
    # A tensor expression, not a branch: it would wait for the device.
    ratio = torch.where((size > 0) & (slope > 0), group["trust_coefficient"] * size / (slope + decay * size), 1.0)
    scaled = torch._foreach_add(slopes, weights, alpha=decay)
    torch._foreach_mul_(scaled, list(ratio.unbind()))
    for place, direction in zip(places, scaled, strict=True):
        gradients[place] = direction
    return gradients
