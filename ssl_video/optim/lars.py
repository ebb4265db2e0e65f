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
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        direction = gradient if parameter.ndim <= 1 else _scaled(parameter, gradient, group)
        momentum = group["momentum"]
        if momentum > 0:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = direction.clone()
            else:
                state["momentum_buffer"].mul_(momentum).add_(direction)
            gathered = state["momentum_buffer"]
            direction = direction.add(gathered, alpha=momentum) if group["nesterov"] else gathered
        parameter.add_(direction, alpha=-group["lr"])


def _scaled(parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """The gradient with decay, scaled to the size of the parameter."""
    decay = group["weight_decay"]
    size, slope = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(gradient)
    # A tensor expression, not a branch: it would wait for the device at every parameter.
    ratio = torch.where((size > 0) & (slope > 0), group["trust_coefficient"] * size / (slope + decay * size), 1.0)
    return gradient.add(parameter, alpha=decay).mul_(ratio)
