"""How fast a training step is computed, whatever it computes: the ``speed`` node of a training configuration."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Literal

import torch
from omegaconf import DictConfig

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.memory_format import MemoryFormat
from ssl_video.backbones.recompute import recompute_activations
from ssl_video.cli.strategies import learning_rate
from ssl_video.methods.base import OptimizerFactory, SSLMethod
from ssl_video.utils.config import build, locate
from ssl_video.utils.errors import InputError


class Speed:
    """Types of the node's values; ``conf/train.yaml`` says what each does."""

    memory_format: MemoryFormat
    fused_optimizer: Literal["auto"] | bool
    matmul_precision: Literal["auto", "highest", "high", "medium"]
    checkpoint_activations: bool
    compile: Literal["none", "backbone", "step"]
    compiler: str
    cuda_graphs: bool


def check_speed(config: DictConfig) -> None:
    """Refuses switches that exclude each other.

    Raises:
        InputError: says which, and what to set.
    """
    speed = config.speed
    if speed.cuda_graphs and config.trainer.accelerator != "gpu":
        raise InputError("speed.cuda_graphs=true replays work on a GPU; set trainer=gpu, or speed.cuda_graphs=false.")
    if speed.cuda_graphs and speed.compile != "backbone":
        raise InputError(
            f"speed.cuda_graphs=true with speed.compile={speed.compile}: it is the compiled backbone that is replayed; "
            "set speed.compile=backbone."
        )
    if speed.cuda_graphs and speed.compiler != "inductor":
        raise InputError(
            f"speed.cuda_graphs=true with speed.compiler={speed.compiler}: only inductor records graphs; set "
            "speed.compiler=inductor."
        )
    if speed.compile == "step" and not _method(config).compiles_whole:
        raise InputError(
            f"speed.compile=step: the step of {_method(config).__name__} is not one graph; set speed.compile=backbone."
        )
    if speed.compile != "none" and speed.checkpoint_activations and speed.compiler != "inductor":
        raise InputError(
            f"speed.checkpoint_activations=true with speed.compiler={speed.compiler} would move batch norm's running "
            "statistics twice; set speed.compiler=inductor."
        )
    if speed.compile != "none" and speed.compiler not in torch.compiler.list_backends(exclude_tags=()):
        raise InputError(
            f"speed.compiler={speed.compiler!r} is not known to torch {torch.__version__}; it has "
            f"{', '.join(torch.compiler.list_backends(exclude_tags=()))}."
        )


def describe_accumulation(config: DictConfig) -> str | None:
    """What accumulated gradients mean for the method; None where there are none."""
    parts = config.trainer.accumulate_grad_batches
    if parts == 1:
        return None
    told = f"each step adds up the gradients of {parts} batches of {config.batch_size} videos on each device"
    if _method(config).compares_videos:
        return f"{told}; videos are compared within one batch only, so this is not a batch {parts} times as large"
    return f"{told}, as one batch {parts} times as large but for batch norm, whose statistics are of one batch"


def _method(config: DictConfig) -> type[SSLMethod[Any]]:
    found: Any = locate(config.method._target_)
    return found  # type: ignore[no-any-return]


def build_optimizer(config: DictConfig) -> OptimizerFactory:
    """What makes the optimizer, at the run's learning rate, fused where that is asked for and possible."""
    make: Any = functools.partial(build(config.optimizer), lr=learning_rate(config))
    factory: OptimizerFactory = functools.partial(make, fused=True) if is_fused(config) else make
    return factory


def is_fused(config: DictConfig) -> bool:
    """Whether one kernel steps all parameters: asked for, and the optimizer has it.

    Not where gradients are clipped under mixed precision, which Lightning refuses for a fused optimizer.
    """
    asked = config.speed.fused_optimizer
    asked = config.trainer.accelerator == "gpu" if asked == "auto" else asked
    clips = config.trainer.gradient_clip_val is not None and str(config.trainer.precision).endswith("mixed")
    known = inspect.signature(locate(config.optimizer._target_)).parameters
    return bool(asked) and "fused" in known and not clips


def set_matmul_precision(config: DictConfig) -> None:
    """How float32 matrices are multiplied, in the whole process."""
    asked = config.speed.matmul_precision
    if asked == "auto":
        asked = "high" if config.trainer.accelerator == "gpu" else "highest"
    torch.set_float32_matmul_precision(asked)


def speed_up(method: SSLMethod[Any], config: DictConfig) -> None:
    """Applies what changes the method itself, in place; the names in its state stay as they are."""
    speed = config.speed
    if speed.checkpoint_activations:
        recompute_activations(method.backbone)  # momentum copies need no gradient
        if speed.compile != "none":  # what cuts a graph into DDP's buckets refuses recomputed parts
            torch._dynamo.config.optimize_ddp = False
    options: dict[str, Any] = {"backend": speed.compiler}
    if speed.cuda_graphs:
        options["mode"] = "reduce-overhead"
    if speed.compile == "backbone":
        # The map, not the module: some methods ask for it directly. Whoever wraps a module changes names in its state.
        for backbone in [module for module in method.modules() if isinstance(module, Backbone)]:
            backbone.feature_map = torch.compile(backbone.feature_map, **options)  # type: ignore[method-assign]
    elif speed.compile == "step":
        method.losses = torch.compile(method.losses, **options)  # type: ignore[method-assign]
