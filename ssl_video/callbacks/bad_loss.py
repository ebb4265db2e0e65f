"""What happens when a loss is NaN or infinite: the run stops, or the step is skipped, and the batch is written down."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ssl_video.data.batch import ClipBatch
from ssl_video.data.semi_batch import SemiBatch
from ssl_video.utils.csv_file import append_rows
from ssl_video.utils.distributed import gather_objects, rank, smallest, world_size
from ssl_video.utils.errors import RunFault

Policy = Literal["stop", "skip"]
HEADER = ("step", "rank", "video_id", "path", "loss")


@dataclass(frozen=True)
class _Part:
    """What is kept of one batch of an optimizer step, of this process."""

    step: int
    rows: tuple[Tensor, ...]
    loss: Tensor  # as it goes into the backward pass: divided by the number of batches whose gradients are accumulated


class NamedSegment(Protocol):
    """What a row of a manifest says, as far as it is written down."""

    @property
    def video_id(self) -> str:
        """Of the video."""
        ...

    @property
    def path(self) -> str:
        """Relative to the data set's root."""
        ...


class BadLoss(pl.Callback):
    """Looks at the loss of every batch, and with ``skip`` at the gradient of every step.

    ``stop``: the process with the bad loss ends the run (which ends the others, see ``cli/rank_watch.py``). On a CPU
    that is before the backward pass. On a GPU nobody waits for the loss: it is copied while the device goes on, and
    read when the next batch's loss has been asked for, and before any checkpoint; so one step is taken with it that is
    never saved.

    ``skip``: all processes leave the optimizer's step out if the loss of one of them, or the gradient, is not finite.
    Parameters, optimizer and momentum copy are then what they were, batch norm's running statistics (of the copy too)
    are put back, and a queue takes no key that is not finite. Step number, schedule and data go on. That has to be
    known before the step: it costs reading the gradient once and waiting for the device once in each, and a sum of one
    number where there are several processes.

    ``bad_batches.csv`` gets the videos of the batches in question (``step, rank, video_id, path, loss``): with ``stop``
    also those of the step before, whose gradient may be what broke the weights; with ``skip`` those of the processes
    whose loss is bad, or of all where only the gradient is.

    Args:
        path: the CSV.
        policy: see above.
        most_in_a_row: so many steps may be skipped in a row; one more ends the run.
        segment_of: what the manifest says of a row.
    """

    def __init__(
        self, path: Path, *, policy: Policy, most_in_a_row: int, segment_of: Callable[[int], NamedSegment]
    ) -> None:
        self.path = path
        self.policy = policy
        self.most_in_a_row = most_in_a_row
        self.segment_of = segment_of
        self.skipped = 0
        self._in_a_row = 0
        self._rows_of_batch: tuple[Tensor, ...] = ()
        self._parts: list[_Part] = []
        self._unread: tuple[_Part, Tensor, torch.cuda.Event] | None = None
        self._buffers: list[Tensor] = []
        self._before: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finds what a forward pass changes in place."""
        if self.policy == "skip":
            self._buffers = _running_statistics(pl_module)
            self._before = [buffer.clone() for buffer in self._buffers]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: ClipBatch | SemiBatch, batch_idx: int
    ) -> None:
        """Keeps which videos it holds; with ``skip`` also what the step may have to put back."""
        self._rows_of_batch = _rows(batch)
        if batch_idx % trainer.accumulate_grad_batches > 0:
            return
        self._parts = [part for part in self._parts if part.step >= trainer.global_step - 2]
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Looks at the loss.

        Raises:
            RunFault: ``stop``, and it is bad, or that of the batch before was.
        """
        part = _Part(trainer.global_step, self._rows_of_batch, loss.detach())
        self._parts.append(part)
        if self.policy == "skip":
            return
        self._read()
        if _is_known(part.loss):
            self._stop_if_bad(part, bool(torch.isfinite(part.loss)))
        else:
            copy = torch.isfinite(part.loss).to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._unread = part, copy, event

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Leaves the step out if it is bad anywhere: an optimizer does nothing to a parameter without a gradient.

        Raises:
            RunFault: too many in a row.
        """
        if self.policy == "stop":
            return
        parts = [part for part in self._parts if part.step == trainer.global_step]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients: list[Tensor] = [parameter.grad for parameter in parameters if parameter.grad is not None]
        own = torch.stack([part.loss for part in parts]).isfinite().all()
        is_good = own & _norm(gradients).isfinite() if gradients else own
        if bool(smallest(is_good.float())):
            self._in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)
        self.skipped += 1
        self._in_a_row += 1
        self._tell_of_skipped(trainer.global_step, parts, own_is_bad=not bool(own))

    def _tell_of_skipped(self, step: int, parts: list[_Part], *, own_is_bad: bool) -> None:
        """Writes the videos of all processes down; ends the run after too many in a row."""
        any_bad = any(gather_objects(own_is_bad))
        told = gather_objects(self._written(parts) if own_is_bad or not any_bad else [])
        if rank() == 0:
            append_rows(self.path, HEADER, [row for rows in told for row in rows])
            what = "loss" if any_bad else "gradient"
            print(
                f"Step {step} was skipped: its {what} is NaN or infinite ({self.skipped} skipped so far); its videos "
                f"are in {self.path}",
                file=sys.stderr,
            )
        if self._in_a_row <= self.most_in_a_row:
            return
        if rank() > 0:
            raise RunFault
        raise RunFault(
            f"{self._in_a_row} steps in a row had a loss or gradient that is NaN or infinite, more than "
            f"bad_loss_in_a_row={self.most_in_a_row}; their videos are in {self.path}. Lower optimizer.lr, clip "
            "gradients by trainer.gradient_clip_val, or raise that number."
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts what was skipped, once there is any."""
        if self.skipped:
            trainer.callback_metrics["train/skipped_steps"] = torch.tensor(float(self.skipped))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps what a bad loss has made of the weights from being saved."""
        self._read()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reads the last loss."""
        self._read()

    def state_dict(self) -> dict[str, Any]:
        """How many steps were skipped."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self.skipped = state_dict["skipped"]

    def _read(self) -> None:
        """Reads what was copied; the device was done with it long ago, unless the batch is the last one."""
        if self._unread is not None:
            part, copy, event = self._unread
            self._unread = None
            event.synchronize()
            self._stop_if_bad(part, bool(copy))

    def _stop_if_bad(self, part: _Part, is_good: bool) -> None:
        if is_good:
            return
        told = [one for one in self._parts if part.step - 1 <= one.step <= part.step]
        append_rows(self.path, HEADER, self._written(told))
        where = f" on rank {rank()}" if world_size() > 1 else ""
        raise RunFault(
            f"The loss of step {part.step} is {float(part.loss)}{where}. The videos of its batch, and of the step "
            f"before, are in {self.path}; the last checkpoint is of before. Lower optimizer.lr, clip gradients by "
            "trainer.gradient_clip_val, or set bad_loss=skip to leave such steps out."
        )

    def _written(self, parts: list[_Part]) -> list[tuple[object, ...]]:
        return [
            (part.step, rank(), segment.video_id, segment.path, float(part.loss))
            for part in parts
            for rows in part.rows
            for segment in map(self.segment_of, rows.tolist())
        ]


def _is_known(loss: Tensor) -> bool:
    """Whether a loss can be read without waiting."""
    return loss.device.type == "cpu"


def _running_statistics(module: nn.Module) -> list[Tensor]:
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


def _norm(gradients: list[Tensor]) -> Tensor:
    norm = get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _rows(batch: ClipBatch | SemiBatch) -> tuple[Tensor, ...]:
    """Rows of the manifest, once for all views of the same videos."""
    parts = (batch,) if isinstance(batch, ClipBatch) else (batch.labeled, next(iter(batch.unlabeled.values())))
    return tuple(part.rows for part in parts)
