"""Building the parts that training and evaluation share from a composed configuration."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig
from pydantic import Field

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.memory_format import lay_out
from ssl_video.backbones.weights import Inflate, load_weights
from ssl_video.callbacks.bad_loss import Policy
from ssl_video.callbacks.save_checkpoint import Mode
from ssl_video.cli.pictures import PictureSettings
from ssl_video.cli.speed import Speed, build_optimizer, check_speed, speed_up
from ssl_video.cli.strategies import ScaleLr, num_processes
from ssl_video.data.datamodule import AugmentOn, VideoDataModule
from ssl_video.data.dataset import ClipSampler, ClipTransform
from ssl_video.data.decoding.decoder import Decoder, DirectDecoder
from ssl_video.data.decoding.isolated import IsolatedDecoder
from ssl_video.data.readers.base import ReaderFactory
from ssl_video.data.semi_part import SemiPart
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.checkpoint import refuse_other_tensors
from ssl_video.utils.config import build, locate, plain
from ssl_video.utils.errors import InputError

Positive = Annotated[int, Field(gt=0)]


class StartingWeights:
    """Types of what a backbone starts from when it is trained; keys of its node that its class knows nothing of."""

    weights: str | None
    inflate: Inflate


class Isolation:
    """Types of how files are kept from hanging or ending a run; keys of the reader's node that its class knows not."""

    isolate: bool
    deadline_seconds: Annotated[float, Field(gt=0)]
    recycle_above_mib: Positive


class TrainSettings:
    """Types of ``train.yaml``'s own values."""

    backbone: StartingWeights
    reader: Isolation
    speed: Speed
    pictures: PictureSettings
    augment_on: Literal["auto", "worker", "device"]
    seed: Annotated[int, Field(ge=0)]
    batch_size: Positive
    scale_lr: ScaleLr
    scale_lr_reference: Positive | None
    bad_loss: Policy
    bad_loss_in_a_row: Positive
    checkpoint_every_steps: Positive | None
    checkpoint_every_minutes: Annotated[float, Field(gt=0)] | None
    keep_last: Annotated[int, Field(ge=0)]
    keep_best: str | None
    keep_best_mode: Mode
    requeue: Literal["auto"] | bool
    time_limit_minutes: Annotated[float, Field(gt=0)] | None
    run_dir: str | None
    resume: str | None
    cache_dir: str | None


class EvaluateSettings:
    """Types of ``evaluate.yaml``'s own values."""

    reader: Isolation
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
_DATA = ("sampler", "transform", "decoder", "batch_size", "seed", "cache_dir", "semi", "augment_on")
PROVIDED = {
    "method": ("backbone", "optimizer", "scheduler", "seed", "num_classes"),
    "dataset": _DATA,
    "logger.tensorboard": ("save_dir",),
    "logger.wandb": ("save_dir", "run_id"),
    "callbacks.online_knn": ("config", "datamodule"),
}


def build_datamodule(
    config: DictConfig,
    *,
    sampler: ClipSampler,
    transform: ClipTransform,
    semi: SemiPart | None = None,
    augment_on: AugmentOn = "worker",
) -> VideoDataModule:
    """The data set, indexed and split; input faults come out here, before anything heavy."""
    datamodule: VideoDataModule = build(
        config.dataset,
        sampler=sampler,
        transform=transform,
        decoder=build_decoder(config),
        batch_size=config.batch_size,
        seed=config.seed,
        cache_dir=cache_dir(config.cache_dir),
        semi=semi,
        augment_on=augment_on,
    )
    datamodule.setup()
    return datamodule


def reader_node(config: DictConfig) -> dict[str, Any]:
    """What builds the reader, without how it is isolated, which changes no pixel."""
    return {key: value for key, value in plain(config.reader).items() if key not in Isolation.__annotations__}


def build_reader(config: DictConfig) -> ReaderFactory:
    """What opens a file for reading frames in the calling process."""
    made: Any = build(reader_node(config))
    # Hydra's own partial checks its policy at every call, 0.2 ms for each file, and decode children would need Hydra.
    return partial(made.func, *made.args, **made.keywords)


def build_decoder(config: DictConfig) -> Decoder:
    """What the data set reads files through."""
    open_reader, isolation = build_reader(config), config.reader
    if not isolation.isolate:
        return DirectDecoder(open_reader)
    return IsolatedDecoder(
        open_reader, deadline_seconds=isolation.deadline_seconds, recycle_above_mib=isolation.recycle_above_mib
    )


def build_backbone(config: DictConfig) -> Backbone:
    """The backbone, whose weights follow from the seed alone: training starts from what ``checkpoint=random`` asks."""
    pl.seed_everything(config.seed, verbose=False)
    backbone: Backbone = build(_backbone_node(config))
    # Without a training configuration too: a third to a half less time on a CPU.
    lay_out(backbone, config.speed.memory_format if "speed" in config else "channels_last")
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
        optimizer=build_optimizer(config),
        scheduler=build(config.scheduler),
        seed=config.seed,
        **({"num_classes": num_classes} if takes_num_classes(config.method) else {}),
    )
    speed_up(method, config)
    return method


def takes_num_classes(method: DictConfig) -> bool:
    """Whether a method's class has an argument for the number of classes."""
    return "num_classes" in inspect.signature(locate(method._target_)).parameters


def build_checked(
    config: DictConfig, *, resumed: Mapping[str, Any] | None = None
) -> tuple[SSLMethod[Any], VideoDataModule]:
    """Method and data of a training job that fit each other; what doesn't is refused here, before anything heavy.

    Args:
        config: of the job.
        resumed: the checkpoint that it goes on with: its list of videos is that of the whole run.
    """
    check_speed(config)
    _check_bad_loss(config)
    share_cores(config)
    semi: SemiPart | None = build(config.semi) if "semi" in config else None
    datamodule = build_datamodule(
        config,
        sampler=build(config.sampler),
        transform=build(config.transform),
        semi=semi,
        augment_on=augment_on(config),
    )
    method = build_method(config, num_classes=len(datamodule.class_names), starts=resumed is None)
    if resumed is not None:
        refuse_other_tensors(method.state_dict(), resumed["state_dict"], source=f"resume={config.resume}")
        datamodule.load_state_dict(resumed["VideoDataModule"])
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


def _check_bad_loss(config: DictConfig) -> None:
    """Refuses to skip what a loss scaler skips by itself: its gradients overflow now and then, and that is no fault."""
    if config.bad_loss == "skip" and config.trainer.precision == "16-mixed":
        raise InputError(
            "bad_loss=skip with trainer.precision=16-mixed: the scaler of its loss skips steps with an infinite "
            "gradient by itself; use trainer.precision=bf16-mixed, or bad_loss=stop."
        )


def augment_on(config: DictConfig) -> AugmentOn:
    """Where clips are finished: on the device where that is a GPU, unless the command line says otherwise."""
    if config.augment_on != "auto":
        chosen: AugmentOn = config.augment_on
        return chosen
    return "device" if config.trainer.accelerator == "gpu" else "worker"


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


def cache_dir(given: str | None) -> Path:
    """Where manifests and made data are kept: never the data's own folder, which may be read-only."""
    return Path(given) if given is not None else platformdirs.user_cache_path("ssl_video")


def backbone_config(config: DictConfig, *, backbone_name: str, sampler: ClipSampler) -> dict[str, Any]:
    """What rebuilds a backbone and its input: kept beside its weights and in every checkpoint."""
    return {
        "name": backbone_name,
        "backbone": _backbone_node(config),
        "input_transform": plain(config.input_transform),
        "reader": reader_node(config),
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
    warnings.filterwarnings("ignore", module="lightning_fabric")  # that srun is there but not used
    warnings.filterwarnings("ignore", category=FutureWarning)
