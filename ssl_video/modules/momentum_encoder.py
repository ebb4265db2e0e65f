"""A slowly moving copy of a network, which makes the keys (MoCo) or targets (BYOL) that the network learns from."""

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn


class MomentumEncoder(nn.Module):
    """Exponential moving average of a network: θ_m ← m·θ_m + (1−m)·θ, once per optimizer step.

    Only parameters are averaged. Buffers, such as batch norm's running statistics, are copied once and then evolve by
    the copy's own forward passes in train mode, as in MoCo's code (He et al., 2020, ``moco/builder.py``).

    Args:
        online: the network to follow; it is copied, not kept.
        momentum: m, or with the cosine schedule its first value m0.
        schedule: ``"cosine"`` raises m from m0 to 1 over the run, m(k) = 1 − (1−m0)·(cos(πk/K)+1)/2 (Grill et al.,
            2020); ``"constant"`` keeps it.
    """

    last_step: Tensor

    def __init__(
        self,
        online: nn.Module,
        *,
        momentum: float = 0.994,
        schedule: Literal["cosine", "constant"] = "cosine",
    ) -> None:
        super().__init__()
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum={momentum} must lie in [0, 1]; 0 copies the network, 1 never moves.")
        if schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule={schedule!r} is not known; use 'cosine' or 'constant'.")
        self.momentum = momentum
        self.schedule = schedule
        self.encoder = copy.deepcopy(online).requires_grad_(False)
        # A buffer, so that a run resumed in the middle of gradient accumulation does not average a step twice.
        self.register_buffer("last_step", torch.tensor(-1))
        self._last_step: int | None = None  # the same, where it is known without waiting for the device
        self.followed: list[Tensor] = []  # of the network, in the order of the copy's; none before the first step
        self.register_load_state_dict_post_hook(_forget_last_step)  # type: ignore[no-untyped-call]

    def momentum_at(self, step: int, total_steps: int) -> float:
        """The m of optimizer step ``step`` in a run of ``total_steps``."""
        if self.schedule == "constant":
            return self.momentum
        progress = min(step / total_steps, 1.0)
        return 1.0 - (1.0 - self.momentum) * (math.cos(math.pi * progress) + 1.0) / 2.0

    @torch.no_grad()
    def step(self, online: nn.Module, *, step: int, total_steps: int) -> None:
        """Move towards ``online``; a step number that repeats the last one is ignored.

        Args:
            online: the network given at construction, as it is now.
            step: number of the optimizer step, from 0. Under gradient accumulation several batches have the same one.
            total_steps: optimizer steps of the whole run.
        """
        last_step = int(self.last_step) if self._last_step is None else self._last_step
        if last_step == step:
            return
        weight = 1.0 - self.momentum_at(step, total_steps)
        # One kernel for all on a GPU. Exact at both ends: unchanged with m = 1, a copy with m = 0.
        self.followed = list(online.parameters())
        torch._foreach_lerp_(list(self.encoder.parameters()), self.followed, weight)
        self.last_step.fill_(step)
        self._last_step = step

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """What the copy makes of its input, without gradient."""
        output: Tensor = self.encoder(clips)
        return output


def _forget_last_step(module: nn.Module, keys: object) -> None:
    """After a state was loaded the buffer alone knows."""
    assert isinstance(module, MomentumEncoder)
    module._last_step = None
