"""What every method shares: summing and logging its losses, its optimizer, and the check that its input fits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssl_video.backbones.base import Backbone
from ssl_video.optim.parameter_groups import apply_lr_factors, decay_groups

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
SchedulerFactory = Callable[..., LRScheduler]
Batch = TypeVar("Batch")
OF_A_STEP = ("train/", "health/", "val/", "time/")  # values that callbacks and loggers see in one step only


class SSLMethod(pl.LightningModule, ABC, Generic[Batch]):
    """A way of learning a backbone without labels.

    A method is its ``losses``: named scalars of a batch, summed for the step. What it only wants to see (an accuracy)
    it puts into ``self.observed``. Both are logged as ``train/<name>``. ``SSLMethod[ClipBatch]`` names its batch.

    Args:
        backbone: clips ``[N, C, T, H, W]`` to features ``[N, D]``.
        optimizer: makes the optimizer from parameter groups.
        scheduler: makes the schedule from the optimizer, ``total_steps`` and ``steps_per_epoch``; stepped once per
            optimizer step.
        seed: all randomness of a step follows from (seed, step, rank).
    """

    decays_all: ClassVar[bool] = False
    min_batch_size: ClassVar[int] = 1  # videos on each device; a batch norm over embeddings needs 2
    encodes_single_frames: ClassVar[bool] = False  # the backbone sees the frames of a clip one by one
    compares_videos: ClassVar[bool] = False  # of a batch: negatives are per batch, also where gradients accumulate
    compiles_whole: ClassVar[bool] = True  # losses() is one graph: it reads no step number and branches on no value
    static_graph: ClassVar[bool] = False  # every step reaches the same parameters in the same order: DDP may rely on it
    shards: ClassVar[bool] = True  # FSDP: it calls its parts as a whole, never a part's parts
    unlabeled_views: ClassVar[tuple[str, ...]] = ()  # of a SemiBatch, for a method that learns from one

    def __init__(
        self, *, backbone: Backbone, optimizer: OptimizerFactory, scheduler: SchedulerFactory, seed: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.seed = seed
        self.observed: dict[str, Tensor] = {}

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of one batch; the step minimises their sum."""

    @abstractmethod
    def check_batch(self, *, num_views: int, num_frames: int) -> None:
        """Refuses clips that the method cannot learn from.

        Raises:
            InputError: names what is there, what is needed and what fits.
        """

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sums the losses and puts each where callbacks and loggers find it."""
        part = batch_idx % self.trainer.accumulate_grad_batches
        self._seed_step(part)
        losses = self.losses(batch)
        total = torch.stack(list(losses.values())).sum()
        self._show({**losses, **self.observed, "loss": total}, part)
        self.observed.clear()
        return total

    def _seed_step(self, part: int) -> None:
        """Dropout and the like take no generator; with this a resumed step is equal to an uninterrupted one."""
        seed = ((self.seed * 1_000_003 + self.global_step) * 4_099 + self.global_rank) + part * 1_000_000_007
        # torch.manual_seed formats stack traces for each kind of device that is not in use: 0.4 ms.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _show(self, values: dict[str, Tensor], part: int) -> None:
        """Values of an optimizer step, ``train/<name>``: the mean over its batches where gradients are accumulated.

        Not by ``self.log``, which takes half a millisecond for each name.
        """
        shown = self.trainer.callback_metrics
        if part == 0:
            for name in [name for name in shown if name.startswith(OF_A_STEP)]:
                del shown[name]
        for name, value in values.items():
            before = shown.get(f"train/{name}")
            new = value.detach()
            shown[f"train/{name}"] = new if before is None else before + (new - before) / (part + 1)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.trainer.max_steps

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        batches: int = self.trainer.datamodule.batches_per_epoch(self.trainer.world_size)  # type: ignore[attr-defined]
        return max(1, batches // self.trainer.accumulate_grad_batches)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimizer: no weight decay on biases and norms, unless the method has it."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [{"params": trained}] if self.decays_all else decay_groups(self)

    def configure_optimizers(self) -> Any:
        """Optimizer, each group at its share of the learning rate (``lr_factor``), and a schedule over steps."""
        optimizer = apply_lr_factors(self.make_optimizer(self.parameter_groups()))
        scheduler = self.make_scheduler(optimizer, total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
