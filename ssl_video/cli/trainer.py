"""The trainer of a run: Lightning's, with what every run has and what the command line chose."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from ssl_video.callbacks.bad_loss import BadLoss
from ssl_video.callbacks.cuda_graphs import CudaGraphSteps
from ssl_video.callbacks.decode_failures import DecodeFailures
from ssl_video.callbacks.end_unhealthy import EndUnhealthy
from ssl_video.callbacks.health import Health
from ssl_video.callbacks.metrics_csv import MEASURED, MetricsCSV
from ssl_video.callbacks.progress import Progress
from ssl_video.callbacks.sampler_flags import SamplerFlags
from ssl_video.callbacks.save_checkpoint import SaveCheckpoint
from ssl_video.callbacks.step_logging import StepLogging
from ssl_video.callbacks.stop_signals import StopSignals
from ssl_video.cli.health import build_callbacks
from ssl_video.cli.loggers import build_loggers
from ssl_video.cli.parts import backbone_config, build_method
from ssl_video.cli.pictures import build_pictures
from ssl_video.cli.speed import set_matmul_precision
from ssl_video.cli.strategies import build_strategy, environment_plugins, num_processes
from ssl_video.cli.studies import study_callbacks
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.checkpoint import AtomicCheckpointIO
from ssl_video.utils.config import build, plain
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job


def build_trainer(
    config: DictConfig,
    job: Job,
    run_dir: Path,
    datamodule: VideoDataModule,
    *,
    goes_on: bool = False,
    state: Mapping[str, Any] | None = None,
) -> pl.Trainer:
    """Lightning's trainer with the callbacks and loggers of a run.

    Args:
        config: of the job.
        job: what Hydra says of it.
        run_dir: the run's folder.
        datamodule: the data.
        goes_on: whether the folder's run goes on.
        state: the checkpoint it goes on from, if there is one.
    """
    set_matmul_precision(config)
    first_step = None if state is None else int(state["global_step"])
    callbacks = _callbacks(config, job, run_dir, datamodule)  # what they refuse comes before a logger is begun
    trainer: pl.Trainer = build(
        config.trainer,
        # The data module's loader holds all epochs in one, so that its workers are never drained; see data/order.py.
        max_steps=total_steps(config, datamodule),
        max_epochs=-1,
        strategy=build_strategy(config),
        logger=build_loggers(config, job, run_dir, resumed=goes_on, first_step=first_step) or False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), *environment_plugins()],
        default_root_dir=str(run_dir),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    return trainer


def _callbacks(config: DictConfig, job: Job, run_dir: Path, datamodule: VideoDataModule) -> list[pl.Callback]:
    """In their order: what measures, what reads the values of the step, what saves it, what ends the run."""
    chosen = build_callbacks(config, datamodule)
    save_checkpoint = _save_checkpoint(config, job, run_dir, datamodule)
    return [
        *_fault_watches(config, run_dir, datamodule),
        SamplerFlags(),
        *chosen,
        *study_callbacks(config),
        *build_pictures(config, run_dir, datamodule, make_method=partial(_another_method, config, datamodule)),
        MetricsCSV(run_dir / "metrics.csv"),
        MetricsCSV(run_dir / "times.csv", kept=MEASURED, only_with="time/"),
        StepLogging(),
        save_checkpoint,
        *(EndUnhealthy(one, save_checkpoint) for one in chosen if isinstance(one, Health)),
        Progress(),
        StopSignals(save_checkpoint.save, time_limit_minutes=config.time_limit_minutes),
        *([CudaGraphSteps()] if config.speed.cuda_graphs else []),
    ]


def _fault_watches(config: DictConfig, run_dir: Path, datamodule: VideoDataModule) -> list[pl.Callback]:
    """What is told and written down of videos that cannot be read and of losses that are no numbers."""
    return [
        DecodeFailures(
            run_dir / "decode_failures.csv",
            max_share=datamodule.max_unreadable_share,
            path_of=datamodule.manifest.path,
            keep=datamodule.keep_in_quarantine if datamodule.quarantine else None,
            samples_per_open=datamodule.clips_per_open,
        ),
        BadLoss(
            run_dir / "bad_batches.csv",
            policy=config.bad_loss,
            most_in_a_row=config.bad_loss_in_a_row,
            segment_of=datamodule.manifest.segment,
        ),
    ]


def _save_checkpoint(config: DictConfig, job: Job, run_dir: Path, datamodule: VideoDataModule) -> SaveCheckpoint:
    return SaveCheckpoint(
        run_dir / "checkpoints",
        every_steps=config.checkpoint_every_steps,
        every_minutes=config.checkpoint_every_minutes,
        keep_last=config.keep_last,
        keep_best=config.keep_best,
        keep_best_mode=config.keep_best_mode,
        config=plain(config),
        backbone_config=backbone_config(config, backbone_name=job.choices["backbone"], sampler=datamodule.sampler),
    )


def _another_method(config: DictConfig, datamodule: VideoDataModule) -> SSLMethod[Any]:
    """The method once more, as it is written: not compiled, from random weights, on the CPU."""
    plainly = config.copy()
    plainly.speed.compile, plainly.speed.checkpoint_activations = "none", False
    return build_method(plainly, num_classes=len(datamodule.class_names), starts=False)


def total_steps(config: DictConfig, datamodule: VideoDataModule) -> int:
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
