"""SGD with a learning rate of their own for biases, as networks of the Caffe era were trained."""

from collections.abc import Iterable
from typing import Any

from torch.optim import SGD


class SGDWithBiasRate(SGD):
    """Plain SGD whose groups without weight decay learn ``bias_lr_factor`` times as fast.

    These are biases and, where they have any, the scales of norms: see ``ssl_video.optim.parameter_groups``. Caffe's
    models usually set ``lr_mult: 2, decay_mult: 0`` for biases.

    Args:
        params: parameter groups.
        lr: learning rate of the groups with weight decay.
        momentum: of the steps.
        weight_decay: of the groups that don't set their own.
        nesterov: look ahead along the momentum.
        bias_lr_factor: learning rate of a group that sets its weight decay to 0, as a multiple of ``lr``.
        fused: one kernel for all parameters; see torch.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        bias_lr_factor: float = 2.0,
        fused: bool | None = None,
    ) -> None:
        groups = [{**group, "lr": lr * bias_lr_factor} if group.get("weight_decay") == 0 else group for group in params]
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)
