"""Building the parts that training and evaluation share from a composed configuration."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, ListConfig
from pydantic import Field
from torch import nn

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.weights import Inflate, load_weights
from ssl_video.callbacks.decode_failures import DecodeFailures
from ssl_video.callbacks.interrupt import Interrupt
from ssl_video.callbacks.metrics_csv import MetricsCSV
from ssl_video.callbacks.progress import Progress
from ssl_video.callbacks.sampler_flags import SamplerFlags
from ssl_video.callbacks.save_checkpoint import SaveCheckpoint
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.dataset import ClipSampler, ClipTransform
from ssl_video.data.semi_part import SemiPart
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.checkpoint import AtomicCheckpointIO
from ssl_video.utils.config import build, locate, plain
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job

Positive = Annotated[int, Field(gt=0)]


class StartingWeights:
    """Types of what a backbone starts from when it is trained; keys of its node that its class knows nothing of."""

    weights: str | None
    inflate: Inflate


class TrainSettings:
    """Types of ``train.yaml``'s own values."""

    backbone: StartingWeights
    seed: Annotated[int, Field(ge=0)]
    batch_size: Positive
    checkpoint_every_steps: Positive
    run_dir: str | None
    resume: str | None
    cache_dir: str | None


class EvaluateSettings:
    """Types of ``evaluate.yaml``'s own values."""

    checkpoint: str
    baselines: list[Literal["random", "inflated", "supervised"]]
    image_weights: str | None
    supervised_checkpoint: str | None
    splits: list[Positive] | None
    num_frames: Positive
    frame_stride: Positive
    seed: Annotated[int, Field(ge=0)]
    batch_size: Positive
    run_dir: str | None
    cache_dir: str | None
    feature_cache: bool
    trusted_packages: list[str]


# Arguments of a node's class that the program passes itself, so that the configuration need not have them.
_DATA = ("sampler", "transform", "open_reader", "batch_size", "seed", "cache_dir", "semi")
PROVIDED = {
    "method": ("backbone", "optimizer", "scheduler", "seed", "num_classes"),
    "dataset": _DATA,
    "logger.tensorboard": ("save_dir",),
    "logger.wandb": ("save_dir",),
}


def build_datamodule(
    config: DictConfig, *, sampler: ClipSampler, transform: ClipTransform, semi: SemiPart | None = None
) -> VideoDataModule:
    """The data set, indexed and split; input faults come out here, before anything heavy."""
    datamodule: VideoDataModule = build(
        config.dataset,
        sampler=sampler,
        transform=transform,
        open_reader=build(config.reader),
        batch_size=config.batch_size,
        seed=config.seed,
        cache_dir=cache_dir(config.cache_dir),
        semi=semi,
    )
    datamodule.setup()
    return datamodule


def build_backbone(config: DictConfig) -> Backbone:
    """The backbone, whose weights follow from the seed alone: training starts from what ``checkpoint=random`` asks."""
    pl.seed_everything(config.seed, verbose=False)
    backbone: Backbone = build(_backbone_node(config))
    # A third to a half less time so on a CPU, forward and backward: r3d_tiny 87 against 144 ms, caffenet_small 23
    # against 45. Layer by layer, as torch refuses either format for a network with weights of the other's dimensions.
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv3d):
            layer.to(memory_format=torch.channels_last_3d)
        elif isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last)
    return backbone


def _backbone_node(config: DictConfig) -> dict[str, Any]:
    """What builds the backbone, without what training starts it from: no checkpoint needs that file again."""
    return {key: value for key, value in plain(config.backbone).items() if key not in StartingWeights.__annotations__}


def _load_starting_weights(backbone: Backbone, config: DictConfig) -> None:
    """Loads ``backbone.weights`` where there are any, and says what was found."""
    if config.backbone.weights is None:
        if config.backbone.inflate:
            raise InputError(
                f"backbone.inflate={config.backbone.inflate} needs 2D weights to inflate; give backbone.weights=PATH."
            )
        return
    loaded = load_weights(backbone, Path(config.backbone.weights), inflate=config.backbone.inflate)
    rank_zero_only(print)(f"backbone.weights={config.backbone.weights}: {loaded}")


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


def share_cores(config: DictConfig, *, processes: int | None = None) -> None:
    """Leaves the decoding workers their cores: more threads than cores wait for each other in every operation.

    Args:
        config: of the job.
        processes: among which the cores are divided; None takes those of the job.
    """
    if config.trainer.accelerator == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        cores = (os.cpu_count() or 1) // (processes or num_processes(config))
        torch.set_num_threads(max(1, cores - config.dataset.num_workers))


def build_method(config: DictConfig, *, num_classes: int = 0, starts: bool = True) -> SSLMethod[Any]:
    """The method around its backbone, which has its starting weights if the run starts and does not go on.

    ``num_classes`` is the data's; only a method that learns from labels takes it.
    """
    backbone = build_backbone(config)
    if starts:  # before the method copies it
        _load_starting_weights(backbone, config)
    method: SSLMethod[Any] = build(
        config.method,
        backbone=backbone,
        optimizer=build(config.optimizer),
        scheduler=build(config.scheduler),
        seed=config.seed,
        **({"num_classes": num_classes} if takes_num_classes(config.method) else {}),
    )
    return method


def takes_num_classes(method: DictConfig) -> bool:
    """Whether a method's class has an argument for the number of classes."""
    return "num_classes" in inspect.signature(locate(method._target_)).parameters


def build_checked(config: DictConfig, *, starts: bool = True) -> tuple[SSLMethod[Any], VideoDataModule]:
    """Method and data of a training job that fit each other; what doesn't is refused here, before anything heavy."""
    share_cores(config)
    semi: SemiPart | None = build(config.semi) if "semi" in config else None
    datamodule = build_datamodule(config, sampler=build(config.sampler), transform=build(config.transform), semi=semi)
    method = build_method(config, num_classes=len(datamodule.class_names), starts=starts)
    _check_views(method, semi)
    method.check_batch(num_views=datamodule.sampler.num_views, num_frames=datamodule.sampler.num_frames)
    if config.batch_size < method.min_batch_size:
        raise InputError(
            f"batch_size={config.batch_size} must be at least {method.min_batch_size} videos on each device for "
            f"{type(method).__name__}, which compares or normalises them; raise batch_size."
        )
    _check_backbone(method, datamodule)
    datamodule.check_enough(num_processes(config))
    datamodule.check_motion()
    return method, datamodule


def _check_views(method: SSLMethod[Any], semi: SemiPart | None) -> None:
    """Refuses unlabelled views that are not those the method takes."""
    given, wanted = sorted(semi.views if semi else ()), sorted(method.unlabeled_views)
    if given != wanted:
        name = type(method).__name__
        raise InputError(
            f"{name} takes {f'the unlabelled views {wanted}' if wanted else 'no unlabelled views'}, but the data gives "
            f"{given or 'none'}; leave `semi=` to the method."
        )


def _check_backbone(method: SSLMethod[Any], datamodule: VideoDataModule) -> None:
    """Refuses a backbone whose strides leave nothing of the method's clips; a black video tells their shape."""
    sampler = datamodule.sampler
    black = torch.zeros(sampler.num_views, sampler.num_frames, 128, 171, 3, dtype=torch.uint8)
    clips = datamodule.transform(black)[:1].to("meta")
    if not method.encodes_single_frames:
        method.backbone.check_clips(clips)
        return
    try:
        method.backbone.check_clips(clips[:, :, :1])
    except InputError as fault:
        raise InputError(
            f"{fault} {type(method).__name__} gives its backbone one frame at a time, whatever the sampler; "
            "backbone=caffenet_small and its kind take those."
        ) from fault


def build_trainer(config: DictConfig, job: Job, run_dir: Path, datamodule: VideoDataModule) -> pl.Trainer:
    """Lightning's trainer with what every run has: metrics, checkpoints, progress, and a count of what failed."""
    callbacks = [
        MetricsCSV(run_dir / "metrics.csv"),
        DecodeFailures(
            run_dir / "decode_failures.csv",
            max_share=datamodule.max_unreadable_share,
            paths=datamodule.manifest.column("path"),
        ),
        SamplerFlags(),
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
        "backbone": _backbone_node(config),
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
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", category=FutureWarning)
