"""What a method learns by: its gradient, its momentum copies and its queues, found in any method."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_video.metrics.parameter_distance import relative_distance
from ssl_video.metrics.queue_age import queue_ages
from ssl_video.modules.feature_queue import FeatureQueue
from ssl_video.modules.momentum_encoder import MomentumEncoder


def gradient_norm(pl_module: pl.LightningModule, *, scaler: Any = None) -> Tensor:
    """Length of the gradient of all parameters together, before it is clipped.

    Args:
        pl_module: after its backward pass.
        scaler: of gradients in half precision that the optimizer itself will scale back; None where they are as they
            are.
    """
    gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
    norm: Tensor = torch.nn.utils.get_total_norm(gradients)
    return norm if scaler is None else norm / scaler.get_scale()


def ema_distance(pl_module: pl.LightningModule) -> Tensor | None:
    """Length of the way from the network to its momentum copy, over that of the network; None where there is no copy.

    Of several copies, the farthest. To be asked before the optimizer steps: then it is that of the copy which made the
    targets, 0 for a copy that is no slower than the network.
    """
    copies = [module for module in pl_module.modules() if isinstance(module, MomentumEncoder) and module.followed]
    if not copies:
        return None
    return torch.stack([relative_distance(copy.encoder.parameters(), copy.followed) for copy in copies]).amax()


class QueueWatch:
    """How old a queue's keys are, seen from how many were added between two looks.

    Args:
        queue: of the method.
        step: at which it begins to watch.
    """

    def __init__(self, queue: FeatureQueue, *, step: int) -> None:
        self.queue = queue
        self._step, self._pushed = step, int(queue.pushed)

    def look(self, step: int) -> dict[str, float]:
        """Steps of the oldest and the mean key, without the noise of the start, and the share of that noise.

        Args:
            step: optimizer steps that are done.
        """
        pushed, length = int(self.queue.pushed), len(self.queue.features)
        rate = (pushed - self._pushed) / max(1, step - self._step)
        self._step, self._pushed = step, pushed
        values = {"queue_noise_share": max(0.0, 1 - pushed / length)}
        if rate > 0:
            oldest, mean = queue_ages(min(pushed, length), keys_per_step=rate)
            values |= {"queue_oldest_steps": oldest, "queue_mean_steps": mean}
        return values


def queue_of(pl_module: pl.LightningModule) -> FeatureQueue | None:
    """The method's queue of keys, where it has one."""
    return next((module for module in pl_module.modules() if isinstance(module, FeatureQueue)), None)
