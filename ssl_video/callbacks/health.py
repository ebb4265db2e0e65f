"""Watches whether a run learns: collapse, gradients, momentum copies, queues, and what its time goes into."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from ssl_video.callbacks.bars import BarWatch, read_bars
from ssl_video.callbacks.decode_failures import DecodeFailures
from ssl_video.callbacks.feature_window import FeatureWindow
from ssl_video.callbacks.learning_state import QueueWatch, ema_distance, gradient_norm, queue_of
from ssl_video.callbacks.throughput import Throughput
from ssl_video.metrics.spread import relative_spread
from ssl_video.utils.distributed import gather_objects
from ssl_video.utils.errors import InputError

# Steps over which the loss is looked at.
LOSSES = 50
WATCHED = ("health/", "time/", "data/", "val/")


class Health(pl.Callback):
    """Measures every few steps, puts the values where loggers find them, and compares them with bars.

    Measured are, of the backbone's features (``health/feature_…``) and the projector's embeddings
    (``health/embedding_…``) of the last training clips: ``std``, ``dead_share``, ``rankme``, ``uniformity`` and
    ``alignment``; ``health/loss_spread`` of the last 50 steps, ``health/gradient_norm``, ``health/ema_distance``,
    ``health/queue_…``; and ``time/…``. README says what each is. Between measurements a step costs one copy of its
    features.

    Values are the same on all processes, those of features over the clips of all of them.

    Args:
        every_steps: optimizer steps between two measurements; the last step is always measured.
        window_clips: training clips that features are described by.
        bars: by value; see ``bars.Bar``.

    Attributes:
        unhealthy: why the run is to end, once a bar with ``action=stop`` is crossed; see ``EndUnhealthy``.
    """

    def __init__(
        self, *, every_steps: int = 50, window_clips: int = 256, bars: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        if every_steps < 1 or window_clips < 2:
            raise InputError(f"every_steps={every_steps} must be at least 1, and window_clips={window_clips} 2.")
        self.every_steps = every_steps
        self.window_clips = window_clips
        self.watch = BarWatch(read_bars(bars or {}))
        self.unhealthy: str | None = None
        self._windows: dict[str, FeatureWindow] = {}
        self._resumed: dict[str, Any] = {}
        self._queue: QueueWatch | None = None
        self._throughput: Throughput | None = None
        self._of_step: dict[str, Tensor] = {}
        self._losses: deque[Tensor] = deque(maxlen=LOSSES)
        self._last_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins to watch."""
        parts = {"feature": pl_module.backbone, "embedding": getattr(pl_module, "projector", None)}
        self._windows = {
            name: FeatureWindow(part, size=self.window_clips)  # type: ignore[arg-type]
            for name, part in parts.items()
            if part is not None
        }
        for name, window in self._windows.items():
            if name in self._resumed:
                window.load_state_dict(self._resumed[name], device=pl_module.device)
        self._resumed = {}
        # Those of a checkpoint come on the CPU.
        self._losses = deque((loss.to(pl_module.device) for loss in self._losses), maxlen=LOSSES)
        queue = queue_of(pl_module)
        self._queue = None if queue is None else QueueWatch(queue, step=trainer.global_step)
        self._throughput = Throughput(trainer)
        self._first_step = self._last_step = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Looks at what the step is about to change."""
        if not self._is_due(trainer, pl_module, trainer.global_step + 1):
            return
        # An optimizer that scales gradients of half precision back has not done so yet.
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        unscales = getattr(optimizer, "_step_supports_amp_scaling", False)
        self._of_step = {"gradient_norm": gradient_norm(pl_module, scaler=scaler if unscales else None)}
        distance = ema_distance(pl_module)
        if distance is not None:
            self._of_step["ema_distance"] = distance

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the batch, and measures where it is time."""
        assert self._throughput is not None
        for window in self._windows.values():
            window.take()
        self._throughput.add(batch.num_clips)
        step = trainer.global_step
        if step != self._last_step:
            self._last_step = step
            self._losses.append(trainer.callback_metrics["train/loss"])
            if self._is_due(trainer, pl_module, step):
                self._measure(trainer, batch, step)
            elif step == self._first_step + 1:
                self._throughput.restart()
        for window in self._windows.values():
            window.tap.clear()

    def _is_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> bool:
        return step % self.every_steps == 0 or step == pl_module.total_steps

    def _measure(self, trainer: pl.Trainer, batch: Any, step: int) -> None:
        assert self._throughput is not None
        health: dict[str, float] = {}
        clips = self._windows["feature"].tap.inputs
        for name, window in self._windows.items():
            health |= {f"{name}_{what}": value for what, value in window.describe().items()}
            alignment = window.alignment(batch, clips)
            health |= {} if alignment is None else {f"{name}_alignment": alignment}
        health |= {name: float(value) for name, value in self._of_step.items()}
        health |= {} if self._queue is None else self._queue.look(step)
        if len(self._losses) == LOSSES:
            health["loss_spread"] = relative_spread(torch.stack(list(self._losses)))
        values = {f"health/{name}": value for name, value in health.items()}
        values |= {f"time/{name}": value for name, value in self._throughput.look().items()}
        readings = [one for one in trainer.callbacks if isinstance(one, DecodeFailures)]  # type: ignore[attr-defined]
        if readings and readings[0].samples:
            values["data/decode_failures_share"] = readings[0].failures / readings[0].samples
        # All processes must come to the same end: what the first one sees counts.
        values = gather_objects(values)[0]
        trainer.callback_metrics.update(values)  # type: ignore[arg-type]
        self._of_step = {}
        seen = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(WATCHED)}
        self._compare(trainer, gather_objects(seen)[0], step)

    def _compare(self, trainer: pl.Trainer, values: Mapping[str, float], step: int) -> None:
        for bar, told in self.watch.look(values, step=step):
            if bar.action == "stop":
                self.unhealthy = told
            elif trainer.is_global_zero:
                print(f"Warning: {told}", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets go of the network."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Lets go of the network."""
        self._close()

    def _close(self) -> None:
        for window in self._windows.values():
            window.close()
        self._windows = {}

    def state_dict(self) -> dict[str, Any]:
        """Which bars were crossed, so that it is not told again, and the features that are looked at together."""
        windows = {name: window.state_dict() for name, window in self._windows.items()}
        losses = torch.stack([loss.float().cpu() for loss in self._losses] or [torch.zeros(())])[: len(self._losses)]
        return {"bars": self.watch.state_dict(), "windows": windows, "losses": losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.watch.load_state_dict(state_dict["bars"])
        self._resumed = state_dict["windows"]
        self._losses.extend(state_dict["losses"])
