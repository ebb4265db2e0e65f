"""Methods built from their presets, with a batch that fits and a stand-in for the trainer."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ssl_video.cli.parts import PROVIDED, TrainSettings, build_backbone, takes_num_classes
from ssl_video.cli.stand_in import attach_stand_in
from ssl_video.data.batch import ClipBatch
from ssl_video.data.dataset import View
from ssl_video.data.semi_batch import SemiBatch
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.conf_path import conf_dir
from ssl_video.utils.config import build, compose_checked, locate

NUM_CLASSES = 5  # of the data, for methods that learn from labels
METHODS = sorted(file.stem for file in (conf_dir() / "method").glob("*.yaml"))


def method_class(name: str) -> type[SSLMethod[Any]]:
    """The class of a preset, without composing the rest: a list of cases is made whenever tests are collected."""
    found: Any = locate(OmegaConf.load(conf_dir() / "method" / f"{name}.yaml")["_target_"])
    assert issubclass(found, SSLMethod)
    return found


def compose_train(*overrides: str) -> DictConfig:
    """The checked training configuration of some overrides, to do with as one likes."""
    return deepcopy(_composed(overrides))


@cache  # Hydra takes 0.2 s each time, and hundreds of tests ask for the same few dozen
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose_checked("train", overrides, provided=PROVIDED, settings=TrainSettings)


def build_method(name: str, *overrides: str, total_steps: int = 100) -> tuple[SSLMethod[Any], DictConfig]:
    """A method on its default backbone, attached to a stand-in trainer at step 0."""
    config = compose_train(f"method={name}", *overrides)
    backbone = build_backbone(config)
    torch.manual_seed(config.seed)
    method: SSLMethod[Any] = build(
        config.method,
        backbone=backbone,
        optimizer=build(config.optimizer),
        scheduler=build(config.scheduler),
        seed=config.seed,
        **({"num_classes": NUM_CLASSES} if takes_num_classes(config.method) else {}),
    )
    attach(method, total_steps=total_steps)
    return method, config


def attach(method: SSLMethod[Any], *, total_steps: int = 100, global_step: int = 0) -> None:
    """Gives the method what it asks of a trainer, in a run of 10 batches an epoch."""
    attach_stand_in(method, total_steps=total_steps, step=global_step, batches_per_epoch=10)


def random_batch(config: DictConfig, *, batch_size: int = 4, seed: int = 0) -> Any:
    """Noise of the shape that the method's data has: a ClipBatch, or a SemiBatch where there is a semi part."""
    generator = torch.Generator().manual_seed(seed)
    own = View(build(config.sampler), build(config.transform))
    labels = torch.randint(NUM_CLASSES, (100,), generator=torch.Generator().manual_seed(seed))
    batch = _noise(own, batch_size, generator, seed)
    batch = replace(batch, labels=labels[:batch_size]) if takes_num_classes(config.method) else batch
    if "semi" not in config:
        return batch
    semi = build(config.semi)
    _, number = semi.batch_sizes(batch_size)
    unlabeled = {name: _noise(view, number, generator, seed + 1) for name, view in semi.views.items()}
    return SemiBatch(labeled=batch, unlabeled=unlabeled, hidden_labels=labels[-number:])


def _noise(view: View, batch_size: int, generator: torch.Generator, seed: int) -> ClipBatch:
    views, frames = view.sampler.num_views, view.sampler.num_frames
    size = view.transform(torch.zeros(views, frames, 64, 64, 3, dtype=torch.uint8)).shape[-1]
    return ClipBatch(
        clips=torch.randn(batch_size, views, 3, frames, size, size, generator=generator),
        indices=torch.arange(frames).expand(batch_size, views, frames),
        labels=torch.full((batch_size,), -1),
        rows=torch.arange(batch_size),
        videos=torch.arange(batch_size) + 1000 * seed,
        positions=torch.arange(batch_size),
    )
