"""Learning rate schedules, stepped once per optimizer step.

A schedule is a function of the step number that multiplies every parameter group's own learning rate; it keeps no
other state, so a resumed run goes on exactly. All take ``total_steps`` and ``steps_per_epoch``, counted in optimizer
steps, so that one can stand in for another.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssl_video.utils.errors import InputError


class _FactorSchedule(LRScheduler, ABC):
    """Learning rate = base learning rate × ``factor_at(step)``."""

    def __init__(self, optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int) -> None:
        if total_steps < 1 or steps_per_epoch < 1:
            raise ValueError(f"total_steps={total_steps} and steps_per_epoch={steps_per_epoch} must be at least 1.")
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        super().__init__(optimizer)

    @abstractmethod
    def factor_at(self, step: int) -> float:
        """The factor of optimizer step ``step``, counted from 0."""

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
        milestones_steps: optimizer steps, from 0, that are the first of the lower learning rate: for recipes that count
            iterations. Given instead of the epochs.
        factor: what it is multiplied by.

    Raises:
        InputError: both or none of the milestones are given.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int,
        steps_per_epoch: int,
        milestones_epochs: Sequence[float] | None = None,
        milestones_steps: Sequence[int] | None = None,
        factor: float = 0.1,
    ) -> None:
        if (milestones_epochs is None) == (milestones_steps is None):
            raise InputError(
                f"milestones_epochs={milestones_epochs} and milestones_steps={milestones_steps}: give one of them."
            )
        in_steps = [round(epoch * steps_per_epoch) for epoch in milestones_epochs or ()]
        self.milestones_steps = [*in_steps, *(milestones_steps or ())]
        self.factor = factor
        super().__init__(optimizer, total_steps=total_steps, steps_per_epoch=steps_per_epoch)

    def factor_at(self, step: int) -> float:
        """``factor`` to the power of the milestones reached."""
        reached = sum(step >= milestone for milestone in self.milestones_steps)
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


class CosineRestart(_FactorSchedule):
    """A cosine, and from some point on another one that begins at a lower learning rate.

    As in TCL's released code (Singh et al., CVPR 2021), where the last phase of the run is a fine-tuning. There both
    cosines are stretched over the *whole* run: at 350 of 400 epochs the first has come down to 0.04 and the second,
    which begins at 0.1, ends at 0.096. With ``cosine_to_phase_end`` each comes down to 0 at the end of its own phase.

    Args:
        optimizer: its groups' learning rates are the base.
        total_steps: optimizer steps of the run.
        steps_per_epoch: optimizer steps per epoch.
        restart_at: where the second cosine begins, in the unit below; beyond the end of the run there is none.
        restart_in: ``epochs``, or ``share`` of the run, from 0 to 1.
        restart_factor: where it begins, as a share of the base learning rate.
        cosine_to_phase_end: see above.
        per_epoch: the learning rate changes at the start of each epoch only, as in the released code.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int,
        steps_per_epoch: int,
        restart_at: float,
        restart_in: Literal["epochs", "share"] = "share",
        restart_factor: float = 0.1,
        cosine_to_phase_end: bool = False,
        per_epoch: bool = False,
    ) -> None:
        if restart_at < 0 or (restart_in == "share" and restart_at > 1):
            raise InputError(f"restart_at={restart_at} with restart_in={restart_in} lies outside the run.")
        self.restart_step = round(restart_at * (steps_per_epoch if restart_in == "epochs" else total_steps))
        self.restart_factor = restart_factor
        self.cosine_to_phase_end = cosine_to_phase_end
        self.per_epoch = per_epoch
        super().__init__(optimizer, total_steps=total_steps, steps_per_epoch=steps_per_epoch)

    def factor_at(self, step: int) -> float:
        """The first cosine before ``restart_step``, the second from there on."""
        step = step - step % self.steps_per_epoch if self.per_epoch else step
        first = step < self.restart_step
        start, top = (0, 1.0) if first else (self.restart_step, self.restart_factor)
        end = min(self.restart_step, self.total_steps) if first else self.total_steps
        length = end - start if self.cosine_to_phase_end else self.total_steps
        progress = min((step - start) / max(length, 1), 1.0)
        return top * (1.0 + math.cos(math.pi * progress)) / 2.0
