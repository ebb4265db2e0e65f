"""Learning rate schedules, stepped once per optimizer step.

A schedule is a function of the step number that multiplies every parameter group's own learning rate; it keeps no
other state, so a resumed run goes on exactly. All take ``total_steps`` and ``steps_per_epoch``, counted in optimizer
steps, so that one can stand in for another.
"""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssl_video.utils.errors import InputError


class _FactorSchedule(LRScheduler):
    """Learning rate = base learning rate × ``factor_at(step)``."""

    def __init__(self, optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int) -> None:
        if total_steps < 1 or steps_per_epoch < 1:
            raise ValueError(f"total_steps={total_steps} and steps_per_epoch={steps_per_epoch} must be at least 1.")
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        super().__init__(optimizer)

    def factor_at(self, step: int) -> float:
        """The factor of optimizer step ``step``, counted from 0."""
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        """Learning rate of each parameter group at the present step (``last_epoch`` in torch's words)."""
        return [base * self.factor_at(self.last_epoch) for base in self.base_lrs]


class Constant(_FactorSchedule):
    """The base learning rate throughout, as in clip order prediction's code."""

    def factor_at(self, step: int) -> float:
        """Always 1."""
        return 1.0


class MultiStep(_FactorSchedule):
    """Multiply by ``factor`` at each milestone.

    Args:
        optimizer: its groups' learning rates are the base.
        total_steps: optimizer steps of the run.
        steps_per_epoch: optimizer steps per epoch.
        milestones_epochs: epochs, from 0, at whose start the learning rate drops; may be fractions.
        factor: what it is multiplied by.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int,
        steps_per_epoch: int,
        milestones_epochs: Sequence[float],
        factor: float = 0.1,
    ) -> None:
        self.milestones_epochs = [float(epoch) for epoch in milestones_epochs]
        self.factor = factor
        super().__init__(optimizer, total_steps=total_steps, steps_per_epoch=steps_per_epoch)

    def factor_at(self, step: int) -> float:
        """``factor`` to the power of the milestones reached."""
        reached = sum(step >= round(epoch * self.steps_per_epoch) for epoch in self.milestones_epochs)
        return float(self.factor**reached)


class WarmupCosine(_FactorSchedule):
    """A linear rise, then half a cosine down to ``final_factor``.

    Two forms are in use, and differ by up to some per cent of the learning rate:

    - ``rises_to="full"`` (MoCo v3): up to the base learning rate, then a cosine over the *remaining* steps.
    - ``rises_to="cosine_value"`` (Feichtenhofer et al., 2021): the cosine runs over *all* steps, and the rise ends on
      its value there: with 35 of 200 epochs at 0.926 of the base learning rate.

    Args:
        optimizer: its groups' learning rates are the base.
        total_steps: optimizer steps of the run.
        steps_per_epoch: optimizer steps per epoch.
        warmup_epochs: length of the rise; may be a fraction.
        warmup_start_factor: where the rise starts, as a share of the base learning rate.
        rises_to: see above.
        final_factor: where the cosine ends, as a share of the base learning rate.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int,
        steps_per_epoch: int,
        warmup_epochs: float = 0.0,
        warmup_start_factor: float = 0.0,
        rises_to: Literal["cosine_value", "full"] = "full",
        final_factor: float = 0.0,
    ) -> None:
        if rises_to not in ("cosine_value", "full"):
            raise ValueError(f"rises_to={rises_to!r} is not known; use 'cosine_value' or 'full'.")
        self.warmup_steps = warmup_epochs * steps_per_epoch
        if self.warmup_steps < 0:
            raise InputError(f"warmup_epochs={warmup_epochs} must be 0 or more.")
        self.warmup_start_factor = warmup_start_factor
        self.rises_to = rises_to
        self.final_factor = final_factor
        super().__init__(optimizer, total_steps=total_steps, steps_per_epoch=steps_per_epoch)

    def factor_at(self, step: int) -> float:
        """The rise before ``warmup_steps``, the cosine from there on; ``final_factor`` from ``total_steps`` on."""
        if step >= self.warmup_steps:
            return self._cosine_at(step)
        start, top = self.warmup_start_factor, self._cosine_at(self.warmup_steps)
        return start + (top - start) * step / self.warmup_steps

    def _cosine_at(self, step: float) -> float:
        first = self.warmup_steps if self.rises_to == "full" else 0.0
        # A run that ends within its warm-up (a smoke test of a long recipe) only sees the rise.
        progress = min((step - first) / max(self.total_steps - first, 1.0), 1.0)
        return self.final_factor + (1.0 - self.final_factor) * (1.0 + math.cos(math.pi * progress)) / 2.0
