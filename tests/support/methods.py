"""Methods built from their presets, with a batch that fits and a stand-in for the trainer."""

from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import DictConfig

from ssl_video.cli.parts import PROVIDED, TrainSettings
from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.config import build, compose_checked


def compose_train(*overrides: str) -> DictConfig:
    """The checked training configuration of some overrides."""
    return compose_checked("train", overrides, provided=PROVIDED, settings=TrainSettings)


def build_method(name: str, *overrides: str, total_steps: int = 100) -> tuple[SSLMethod[Any], DictConfig]:
    """A method on its default backbone, attached to a stand-in trainer at step 0."""
    config = compose_train(f"method={name}", *overrides)
    torch.manual_seed(config.seed)
    method: SSLMethod[Any] = build(
        config.method,
        backbone=build(config.backbone),
        optimizer=build(config.optimizer),
        scheduler=build(config.scheduler),
        seed=config.seed,
    )
    attach(method, total_steps=total_steps)
    return method, config


def attach(method: SSLMethod[Any], *, total_steps: int = 100, global_step: int = 0) -> None:
    """Gives the method what it asks of a trainer."""
    trainer: Any = SimpleNamespace(
        global_step=global_step,
        global_rank=0,
        max_steps=total_steps,
        max_epochs=-1,
        accumulate_grad_batches=1,
        world_size=1,
        datamodule=SimpleNamespace(batches_per_epoch=lambda processes: 10),
    )
    method._trainer = trainer


def random_batch(config: DictConfig, *, batch_size: int = 4, seed: int = 0) -> ClipBatch:
    """Noise of the shape that the method's sampler and transform give."""
    generator = torch.Generator().manual_seed(seed)
    sampler, transform = build(config.sampler), build(config.transform)
    views, frames = sampler.num_views, sampler.num_frames
    size = transform(torch.zeros(views, frames, 64, 64, 3, dtype=torch.uint8)).shape[-1]
    return ClipBatch(
        clips=torch.randn(batch_size, views, 3, frames, size, size, generator=generator),
        indices=torch.arange(frames).expand(batch_size, views, frames),
        labels=torch.full((batch_size,), -1),
        rows=torch.arange(batch_size),
        videos=torch.arange(batch_size) + 1000 * seed,
        positions=torch.arange(batch_size),
    )
