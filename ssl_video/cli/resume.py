"""What ``resume=`` goes on with, and what it brings along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from ssl_video.cli.parts import num_processes
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.conf_path import conf_dir
from ssl_video.utils.config import plain
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job, find_resumable, holds_run, last_checkpoint, read_record


def complete_overrides(overrides: list[str]) -> list[str]:
    """All overrides of a job: ``resume=RUN`` alone brings the run's own back, and those given now win.

    Raises:
        InputError: there is no such run, or an experiment is asked for with another method.
    """
    given = overrides_by_key(overrides)
    _refuse_foreign_method(given)
    value = given.get("resume", "null")
    if value in ("null", "auto"):
        return overrides
    own = read_record(_run_folder(Path(value)))["overrides"]
    kept = [text for text in own if text.split("=")[0].lstrip("+~") not in {*given, "run_dir"}]
    return [*kept, *overrides]


def overrides_by_key(overrides: list[str]) -> dict[str, str]:
    """``{"seed": "1"}`` of ``["seed=1"]``, values as they were written."""
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+~"): value.strip("'\"") for key, _, value in pairs}


def _refuse_foreign_method(given: dict[str, str]) -> None:
    file = conf_dir() / "experiment" / f"{given.get('experiment')}.yaml"
    if "method" not in given or not file.is_file():
        return
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    own = next(entry["override /method"] for entry in content["defaults"] if "override /method" in entry)
    if given["method"] != own:
        raise InputError(
            f"experiment={given['experiment']} is a claim about method={own}; with method={given['method']} its "
            "settings mean nothing. Leave one of the two out."
        )


def refuse_parallel_sweep(config: DictConfig, job: Job) -> None:
    """A sweep's jobs run one after the other in one process, which cannot start other ranks twice.

    Raises:
        InputError: a sweep over jobs of several devices.
    """
    if job.sweep_dir is not None and num_processes(config) > 1:
        raise InputError(
            f"-m with trainer.devices={config.trainer.devices}: a local sweep runs on one device per job. Start each "
            "job as a command of its own, or let a launcher start one process per device."
        )


def _run_folder(path: Path) -> Path:
    """The run's folder of ``resume=``: itself, or that of a checkpoint in it."""
    folder = path.parent.parent if path.suffix == ".ckpt" else path
    if not holds_run(folder):
        raise InputError(f"resume={path} is neither a run's folder nor a checkpoint in one.")
    return folder


def resumed_folder(config: DictConfig, job: Job) -> Path | None:
    """The folder of the run to go on with, None to start a new one."""
    if config.resume is None:
        return None
    if config.resume != "auto":
        return _run_folder(Path(config.resume))
    found = find_resumable(config.run_dir, job, config=plain(config))
    print(f"resume=auto: going on with {found}." if found else "resume=auto: nothing to resume, starting.")
    return found


def checkpoint_of(config: DictConfig, resumed: Path | None) -> Path | None:
    """The checkpoint to load, None where a run was killed before its first."""
    if resumed is None:
        return None
    if str(config.resume).endswith(".ckpt"):
        return Path(config.resume)
    checkpoint = last_checkpoint(resumed)
    if checkpoint is None:
        print(f"{resumed} has no checkpoint yet; starting from step 0.")
    return checkpoint


def is_finished(
    state: Mapping[str, Any], method: SSLMethod[Any], trainer: pl.Trainer, datamodule: VideoDataModule
) -> bool:
    """Whether a checkpoint has all the steps that are asked for."""
    method.trainer = trainer
    trainer.datamodule = datamodule  # type: ignore[attr-defined]
    return bool(state["global_step"] >= method.total_steps)
