"""``checkpoints/``: the newest state every few steps or minutes, some before it, the best one, and their backbones."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from torch import Tensor

from ssl_video.callbacks.each_step import EachStep
from ssl_video.utils.agreement import Agreement
from ssl_video.utils.checkpoint import save_backbone
from ssl_video.utils.distributed import gather_objects
from ssl_video.utils.errors import InputError
from ssl_video.utils.files import remove_partial
from ssl_video.utils.kept import BACKBONE, BEST, LAST, keep_best, keep_newest, set_aside

Mode = Literal["auto", "min", "max"]
SMALLER_IS_BETTER = ("loss", "nce", "nt_xent", "cosine", "error", "alignment", "uniformity", "distance")
LARGER_IS_BETTER = ("top1", "top5", "knn", "acc", "recall", "precision", "agreement", "rank", "std")


def better_is(name: str, mode: Mode) -> Literal["min", "max"]:
    """Whether a value is the better the smaller (``min``) or the larger (``max``) it is.

    Raises:
        InputError: ``auto``, and its name does not tell.
    """
    if mode != "auto":
        return mode
    if any(word in name for word in LARGER_IS_BETTER):
        return "max"
    if any(word in name for word in SMALLER_IS_BETTER):
        return "min"
    raise InputError(f"keep_best={name}: its name does not tell which is better; add keep_best_mode=min or max.")


class SaveCheckpoint(EachStep):
    """Writes the whole state and the backbone, at the end of a step only, so that both are of one step.

    Args:
        folder: the run's ``checkpoints`` folder.
        every_steps: optimizer steps between two checkpoints; the last step is always written.
        every_minutes: minutes since the one before, by the first clock that says so.
        keep_last: so many of the newest are kept as ``step_<n>.ckpt``.
        keep_best: value of ``trainer.callback_metrics`` by which ``best.ckpt`` is chosen among those that were due: its
            mean over the steps since the one before that have it. The first process decides, by its own values.
        keep_best_mode: which is better; ``auto`` goes by its name.
        config: the composed configuration, as plain data; kept in the checkpoint.
        backbone_config: what rebuilds the backbone and its input; kept beside its weights.

    Raises:
        InputError: no checkpoint would ever be due, or the value's name does not tell which is better.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_steps: int | None,
        every_minutes: float | None = None,
        keep_last: int = 2,
        keep_best: str | None = None,
        keep_best_mode: Mode = "auto",
        config: dict[str, Any],
        backbone_config: dict[str, Any],
    ) -> None:
        if every_steps is None and every_minutes is None:
            raise InputError(
                "checkpoint_every_steps=null and checkpoint_every_minutes=null: a kill would cost the whole run; set "
                "one of them."
            )
        self.folder = folder
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.keep_last = keep_last
        self.criterion = None if keep_best is None else Criterion(keep_best, better_is(keep_best, keep_best_mode))
        self.config = config
        self.backbone_config = backbone_config
        self._saved_step = -1
        self._saved_at = 0.0
        self._backbone: dict[str, Tensor] = {}
        self._agreement: Agreement | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is resumed need not be saved again, and is the newest from now on.

        Raises:
            RuntimeError: the processes have resumed different steps.
        """
        super().on_train_start(trainer, pl_module)
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        self._agreement = Agreement() if self.every_minutes is not None else None
        steps = gather_objects(trainer.global_step)
        if len(set(steps)) > 1:
            raise RuntimeError(
                f"The processes go on from the steps {steps}: they see different files in {self.folder}. Start again "
                "when the file system shows all of them the same."
            )
        if trainer.is_global_zero:
            remove_partial(self.folder)
            if trainer.ckpt_path is not None:
                names = set_aside(self.folder, Path(trainer.ckpt_path), step=trainer.global_step)
                save_backbone(self.folder / BACKBONE, self._backbone, config=self.backbone_config)
                if names:
                    print(f"Not used any more, and yours to remove from {self.folder}: {', '.join(names)}")
        self._backbone = {}

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, step: int) -> None:
        """Saves when the step is due and has not been saved."""
        if self.criterion is not None:
            self.criterion.see(trainer)
        if self._is_due(step, total=int(str(pl_module.total_steps))):
            self.save(trainer, pl_module, judge=True)

    def _is_due(self, step: int, *, total: int) -> bool:
        by_clock = self._agreement is not None and bool(self._agreement.ask(int(self._is_late())))
        return by_clock or step == total or (self.every_steps is not None and step % self.every_steps == 0)

    def _is_late(self) -> bool:
        return self.every_minutes is not None and time.monotonic() - self._saved_at >= 60 * self.every_minutes

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, judge: bool = False) -> None:
        """Writes the checkpoint of this step, on all processes together; a full disk is told and survived.

        Args:
            trainer: of the run.
            pl_module: its method.
            judge: compare it with the best one.

        Raises:
            OSError: it is the last one and cannot be written.
        """
        step = trainer.global_step
        if step == self._saved_step:
            return
        self._saved_step, self._saved_at = step, time.monotonic()
        before = None if self.criterion is None else self.criterion.state_dict()
        is_best = judge and self.criterion is not None and self.criterion.judge(step)
        try:
            trainer.save_checkpoint(self.folder / LAST)
            checkpoint_io: Any = trainer.strategy.checkpoint_io
            checkpoint_io.raise_fault()
            if trainer.is_global_zero:
                save_backbone(self.folder / BACKBONE, self._backbone, config=self.backbone_config)
                keep_newest(self.folder, step, number=self.keep_last)
                if is_best:
                    keep_best(self.folder)
        except OSError as fault:
            if self.criterion is not None and before is not None:
                self.criterion.load_state_dict(before)
            if step == int(str(pl_module.total_steps)):
                raise
            # A disk that is full for an hour must not cost the run; the checkpoint before is intact.
            print(
                f"The checkpoint of step {step} could not be written ({fault}); the one before is kept, and the next "
                f"try is with the next one that is due. Free some space in {self.folder}.",
                file=sys.stderr,
            )
        finally:
            self._backbone = {}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the configuration, so that the file explains itself, and remembers the backbone that is in it."""
        checkpoint["config"] = self.config
        checkpoint["backbone_config"] = self.backbone_config
        self._backbone = _backbone_of(checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remembers the backbone: a kill right after a checkpoint leaves an older one beside it."""
        self._backbone = _backbone_of(checkpoint)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves nothing under way, and says so where the value to choose by never came."""
        if self._agreement is not None:
            self._agreement.close()
        if self.criterion is not None and self.criterion.best is None and trainer.is_global_zero:
            seen = ", ".join(sorted(name for name in trainer.callback_metrics if "/" in name))
            print(
                f"keep_best={self.criterion.name}: no step before a checkpoint had this value, so there is no {BEST}; "
                f"the last step had {seen}.",
                file=sys.stderr,
            )

    def state_dict(self) -> dict[str, Any]:
        """What the best one is judged by."""
        return {} if self.criterion is None else self.criterion.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on judging where the run stopped, if by the same value."""
        if self.criterion is not None:
            self.criterion.load_state_dict(state_dict)


def _backbone_of(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = checkpoint["state_dict"]
    return {name.removeprefix("backbone."): tensor for name, tensor in state.items() if name.startswith("backbone.")}


class Criterion:
    """The mean of a named value since it was last judged, and the best such mean.

    Args:
        name: of the value.
        better: whether the smallest or the largest is the best.
    """

    def __init__(self, name: str, better: Literal["min", "max"]) -> None:
        self.name = name
        self.better = better
        self.best: float | None = None
        self.best_step = -1
        self._sum: float | Tensor = 0.0
        self._count = 0

    def see(self, trainer: pl.Trainer) -> None:
        """Adds the step's value, if it has one; without reading it, which would wait for the device."""
        value = trainer.callback_metrics.get(self.name)
        if value is not None:
            self._sum = value.detach() + self._sum if isinstance(value, Tensor) else value + self._sum
            self._count += 1

    def judge(self, step: int) -> bool:
        """Whether the mean is better than all before; begins the next one."""
        if not self._count:
            return False
        mean = float(self._sum) / self._count
        self._sum, self._count = 0.0, 0
        if not math.isfinite(mean):
            return False
        if self.best is not None and (mean >= self.best if self.better == "min" else mean <= self.best):
            return False
        self.best, self.best_step = mean, step
        return True

    def state_dict(self) -> dict[str, Any]:
        """Plain data; ``_sum`` as a number of the same precision."""
        total = float(self._sum)
        return {
            "name": self.name,
            "best": self.best,
            "best_step": self.best_step,
            "sum": total,
            "count": self._count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with it, unless it is of another value."""
        if state.get("name") != self.name:
            return
        self.best, self.best_step = state["best"], state["best_step"]
        self._sum, self._count = state["sum"], state["count"]
