"""Where a run's processes come from and how they share the work, and what that means for batch and learning rate."""

from __future__ import annotations

import math
import os
from typing import Any, Literal

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from omegaconf import DictConfig, ListConfig
from pytorch_lightning.strategies import DDPStrategy, Strategy

from ssl_video.cli.rank_watch import watch_processes
from ssl_video.cli.sharding import ShardedStrategy
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.config import build, locate
from ssl_video.utils.errors import InputError

ScaleLr = Literal["none", "linear", "sqrt"]


def processes_per_node(config: DictConfig) -> int:
    """Processes that a job will have on each machine, before any of them is there."""
    devices = config.trainer.devices
    if isinstance(devices, int) and devices > 0:
        return devices
    if isinstance(devices, ListConfig):
        return max(1, len(devices))
    # "auto" or -1
    return max(1, torch.cuda.device_count()) if config.trainer.accelerator == "gpu" else 1


def num_processes(config: DictConfig) -> int:
    """Processes that a job will have, before any of them is there."""
    return processes_per_node(config) * int(config.trainer.num_nodes)


def refuse_other_number(config: DictConfig) -> None:
    """Processes that know nothing of each other would all do the whole and write over each other's results.

    Raises:
        InputError: other processes were started from outside than the configuration has.
    """
    if "LOCAL_RANK" in os.environ:
        started = int(os.environ.get("WORLD_SIZE", "1"))
    elif _starts_by_srun():
        started = int(os.environ["SLURM_NTASKS"])
    else:
        return
    if started != num_processes(config):
        raise InputError(
            f"{started} processes were started from outside (torchrun, srun), but trainer.devices="
            f"{config.trainer.devices} and trainer.num_nodes={config.trainer.num_nodes} make {num_processes(config)}; "
            "set both to what was started."
        )


def environment_plugins() -> list[Any]:
    """Tells Lightning who starts the processes, where it would take SLURM for something else.

    A job of one task starts its other processes by itself, as outside of SLURM. And it is ours to have it requeued:
    Lightning's own way would write checkpoints of another kind.
    """
    if TorchElasticEnvironment.detect() or "SLURM_NTASKS" not in os.environ:
        return []
    return [SLURMEnvironment(auto_requeue=False) if _starts_by_srun() else LightningEnvironment()]


def _starts_by_srun() -> bool:
    several = int(os.environ.get("SLURM_NTASKS") or 1) > 1
    return several and SLURMEnvironment.detect()


def build_strategy(config: DictConfig) -> Strategy | str:
    """How the processes of a training run share it.

    Raises:
        InputError: it cannot be used for this run, or other processes were started than the run has.
    """
    refuse_other_number(config)
    watch_processes()
    if "_target_" not in config.strategy:
        name: str = config.strategy.name
        return name
    kind: Any = locate(config.strategy._target_)
    method: type[SSLMethod[Any]] = locate(config.method._target_)  # type: ignore[assignment]
    further: dict[str, Any] = {}
    if issubclass(kind, ShardedStrategy):
        kind.check(method, config.optimizer)
    elif issubclass(kind, DDPStrategy) and method.static_graph and config.trainer.accumulate_grad_batches == 1:
        further = {"static_graph": True}
    strategy: Strategy = build(config.strategy, **further)
    return strategy


# --- batch and learning rate ------------------------------------------------------------------------------------------


def effective_batch(config: DictConfig) -> int:
    """Videos whose gradients make one optimizer step, as ``batch_size`` counts them."""
    return int(config.batch_size * num_processes(config) * config.trainer.accumulate_grad_batches)


def learning_rate(config: DictConfig) -> float:
    """``optimizer.lr`` after ``scale_lr``: times the effective batch over ``scale_lr_reference``, or times its root.

    The linear rule is that of Goyal et al. ("Accurate, Large Minibatch SGD", 2017); the root is usual with Adam.

    Raises:
        InputError: it is to be scaled, but nobody says for which batch ``optimizer.lr`` is.
    """
    given = float(config.optimizer.lr)
    if config.scale_lr == "none":
        return given
    if config.scale_lr_reference is None:
        raise InputError(
            f"scale_lr={config.scale_lr}, but nobody says for which global batch optimizer.lr={given:g} is; set "
            "scale_lr_reference to its number of videos. Experiments know theirs, and conf/optimizer/ names it where "
            "the source does."
        )
    ratio = effective_batch(config) / config.scale_lr_reference
    return given * (ratio if config.scale_lr == "linear" else math.sqrt(ratio))


def describe_batch(config: DictConfig) -> str:
    """One line: the effective batch and what it is made of, the learning rate and the rule it comes by."""
    trainer = config.trainer
    parts = f"{config.batch_size} x {processes_per_node(config)} device(s) x {trainer.num_nodes} node(s)"
    parts += f" x {trainer.accumulate_grad_batches} accumulated"
    rate = f"learning rate {learning_rate(config):g}"
    if config.scale_lr == "none":
        rule = "as given (scale_lr=none)"
    else:
        ratio = f"{effective_batch(config)}/{config.scale_lr_reference}"
        ratio = f"sqrt({ratio})" if config.scale_lr == "sqrt" else ratio
        rule = f"= {config.optimizer.lr:g} x {ratio} (scale_lr={config.scale_lr})"
    return f"effective batch {effective_batch(config)} videos ({parts}); {rate} {rule}"
