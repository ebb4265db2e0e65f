"""Building the parts that training and evaluation share from a composed configuration."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, ListConfig
from pydantic import Field

from ssl_video.backbones.base import Backbone
from ssl_video.callbacks.decode_failures import DecodeFailures
from ssl_video.callbacks.interrupt import Interrupt
from ssl_video.callbacks.metrics_csv import MetricsCSV
from ssl_video.callbacks.progress import Progress
from ssl_video.callbacks.save_checkpoint import SaveCheckpoint
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.dataset import ClipSampler, ClipTransform
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.checkpoint import AtomicCheckpointIO
from ssl_video.utils.config import build, plain
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job

Positive = Annotated[int, Field(gt=0)]


class TrainSettings:
    """Types of ``train.yaml``'s own values."""

    seed: Annotated[int, Field(ge=0)]
    batch_size: Positive
    checkpoint_every_steps: Positive
    run_dir: str | None
    resume: str | None
    cache_dir: str | None


class EvaluateSettings:
    """Types of ``evaluate.yaml``'s own values."""

    checkpoint: str
    baselines: list[Literal["random"]]
    num_frames: Positive
    frame_stride: Positive
    seed: Annotated[int, Field(ge=0)]
    batch_size: Positive
    run_dir: str | None
    cache_dir: str | None
    trusted_packages: list[str]


# Arguments of a node's class that the program passes itself, so that the configuration need not have them.
_DATA = ("sampler", "transform", "open_reader", "batch_size", "seed", "cache_dir")
PROVIDED = {
    "method": ("backbone", "optimizer", "scheduler", "seed"),
    "dataset": _DATA,
    "logger.tensorboard": ("save_dir",),
    "logger.wandb": ("save_dir",),
}


def build_datamodule(config: DictConfig, *, sampler: ClipSampler, transform: ClipTransform) -> VideoDataModule:
    """The data set, indexed and split; input faults come out here, before anything heavy."""
    datamodule: VideoDataModule = build(
        config.dataset,
        sampler=sampler,
        transform=transform,
        open_reader=build(config.reader),
        batch_size=config.batch_size,
        seed=config.seed,
        cache_dir=cache_dir(config.cache_dir),
    )
    datamodule.setup()
    return datamodule


def build_backbone(config: DictConfig) -> Backbone:
    """The backbone, whose weights follow from the seed alone: training starts from what ``checkpoint=random`` asks."""
    pl.seed_everything(config.seed, verbose=False)
    backbone: Backbone = build(config.backbone)
    # 3D convolutions take a third less time so on a CPU (r3d_tiny, forward and backward: 87 against 144 ms).
    return backbone.to(memory_format=torch.channels_last_3d)


def num_processes(config: DictConfig) -> int:
    """Processes that a training job will have, before any of them is there."""
    devices = config.trainer.devices
    if isinstance(devices, int) and devices > 0:
        per_node = devices
    elif isinstance(devices, ListConfig):
        per_node = len(devices)
    else:  # "auto" or -1
        per_node = torch.cuda.device_count() if config.trainer.accelerator == "gpu" else 1
    return max(1, per_node) * int(config.trainer.num_nodes)


def share_cores(config: DictConfig) -> None:
    """Leaves the decoding workers their cores: more threads than cores wait for each other in every operation."""
    if config.trainer.accelerator == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        cores = (os.cpu_count() or 1) // num_processes(config)
        torch.set_num_threads(max(1, cores - config.dataset.num_workers))


def build_method(config: DictConfig) -> SSLMethod[Any]:
    """The method around its backbone."""
    backbone = build_backbone(config)
    method: SSLMethod[Any] = build(
        config.method,
        backbone=backbone,
        optimizer=build(config.optimizer),
        scheduler=build(config.scheduler),
        seed=config.seed,
    )
    return method


def build_checked(config: DictConfig) -> tuple[SSLMethod[Any], VideoDataModule]:
    """Method and data of a training job that fit each other; what doesn't is refused here, before anything heavy."""
    share_cores(config)
    method = build_method(config)
    datamodule = build_datamodule(config, sampler=build(config.sampler), transform=build(config.transform))
    method.check_batch(num_views=datamodule.sampler.num_views, num_frames=datamodule.sampler.num_frames)
    _check_backbone(method, datamodule)
    datamodule.check_enough(num_processes(config))
    return method, datamodule


def _check_backbone(method: SSLMethod[Any], datamodule: VideoDataModule) -> None:
    """Refuses a backbone whose strides leave nothing of the method's clips; a black video tells their shape."""
    sampler = datamodule.sampler
    black = torch.zeros(sampler.num_views, sampler.num_frames, 128, 171, 3, dtype=torch.uint8)
    clips = datamodule.transform(black)[:1].to("meta")
    method.backbone.check_clips(clips[:, :, :1] if method.encodes_single_frames else clips)


def build_trainer(config: DictConfig, job: Job, run_dir: Path, datamodule: VideoDataModule) -> pl.Trainer:
    """Lightning's trainer with what every run has: metrics, checkpoints, progress, and a count of what failed."""
    callbacks = [
        MetricsCSV(run_dir / "metrics.csv"),
        DecodeFailures(
            run_dir / "decode_failures.csv",
            max_share=datamodule.max_unreadable_share,
            paths=datamodule.manifest.column("path"),
        ),
        SaveCheckpoint(
            run_dir / "checkpoints",
            every_steps=config.checkpoint_every_steps,
            config=plain(config),
            backbone_config=backbone_config(config, backbone_name=job.choices["backbone"], sampler=datamodule.sampler),
        ),
        Progress(),
        Interrupt(),
        *(build(node) for node in (config.callbacks or {}).values()),
    ]
    trainer: pl.Trainer = build(
        config.trainer,
        # The data module's loader holds all epochs in one, so that its workers are never drained; see data/order.py.
        max_steps=_total_steps(config, datamodule),
        max_epochs=-1,
        strategy=build(config.strategy) if "_target_" in config.strategy else config.strategy.name,
        # Absolute: W&B writes from a process of its own, whose working directory may be another.
        logger=[build(node, save_dir=str(run_dir.absolute())) for node in (config.logger or {}).values()] or False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(run_dir),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    return trainer


def _total_steps(config: DictConfig, datamodule: VideoDataModule) -> int:
    """Optimizer steps of the run: the first of the limits that are set."""
    limits = []
    if config.trainer.max_steps > 0:
        limits.append(config.trainer.max_steps)
    if (config.trainer.max_epochs or 0) > 0:
        steps_per_epoch = max(
            1, datamodule.batches_per_epoch(num_processes(config)) // config.trainer.accumulate_grad_batches
        )
        limits.append(config.trainer.max_epochs * steps_per_epoch)
    if not limits:
        raise InputError(
            f"trainer.max_steps={config.trainer.max_steps} and trainer.max_epochs={config.trainer.max_epochs}: one of "
            "them must be above 0 to end the run."
        )
    return int(min(limits))


def cache_dir(given: str | None) -> Path:
    """Where manifests and made data are kept: never the data's own folder, which may be read-only."""
    return Path(given) if given is not None else platformdirs.user_cache_path("ssl_video")


def backbone_config(config: DictConfig, *, backbone_name: str, sampler: ClipSampler) -> dict[str, Any]:
    """What rebuilds a backbone and its input: kept beside its weights and in every checkpoint."""
    return {
        "name": backbone_name,
        "backbone": plain(config.backbone),
        "input_transform": plain(config.input_transform),
        "reader": plain(config.reader),
        "seed": config.seed,
        "cache_dir": config.cache_dir,
        "num_frames": sampler.num_frames,
        "frame_stride": sampler.frame_stride,
    }


def quiet() -> None:
    """Silences what libraries say on every start and nobody can act on."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", category=FutureWarning)
