"""What ``resume=`` goes on with, and what it brings along."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ssl_video.cli.strategies import num_processes
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.checkpoint import read_checkpoint
from ssl_video.utils.conf_path import conf_dir
from ssl_video.utils.config import plain
from ssl_video.utils.errors import InputError
from ssl_video.utils.kept import Intact, newest_intact
from ssl_video.utils.run import Job, find_own, find_resumable, holds_run, job_id, read_record, requeued


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
    # Where a run goes on, and as part of what, is said anew.
    not_kept = {*given, "run_dir", "launcher", "sweep"}
    keys = [text.split("=")[0].lstrip("+~") for text in own]
    kept = [text for key, text in zip(keys, own, strict=True) if not {key, key.split(".")[0]} & not_kept]
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


def _run_folder(path: Path) -> Path:
    """The run's folder of ``resume=``: itself, or that of a checkpoint in it."""
    folder = path.parent.parent if path.suffix == ".ckpt" else path
    if not holds_run(folder):
        raise InputError(f"resume={path} is neither a run's folder nor a checkpoint in one.")
    return folder


def resumed_folder(config: DictConfig, job: Job) -> Path | None:
    """The folder of the run to go on with, None to start a new one; a requeued job has its own."""
    if config.resume not in (None, "auto"):
        return _run_folder(Path(config.resume))
    if config.resume is None and not requeued():
        return None
    found = find_own(config.run_dir, job, config=plain(config)) if requeued() else None
    if found is None and config.resume == "auto":  # also of a job that started again: it may have gone on with another
        found = find_resumable(config.run_dir, job, config=plain(config))
    asked = "resume=auto" if config.resume is not None else f"Job {job_id()} starts again"
    _say(f"{asked}: going on with {found}." if found else f"{asked}: nothing to resume, starting.")
    return found


def checkpoint_of(config: DictConfig, resumed: Path | None) -> Intact | None:
    """The checkpoint to load and its content, None where a run was killed before its first.

    Raises:
        InputError: there are some, but none can be read.
    """
    if resumed is None:
        return None
    # A requeued job has gone on since it took the checkpoint that its command line names.
    if str(config.resume).endswith(".ckpt") and not requeued():
        return Intact(Path(config.resume), read_checkpoint(Path(config.resume)))
    found = newest_intact(resumed / "checkpoints")
    if found is None:
        _say(f"{resumed} has no checkpoint yet; starting from step 0.")
    elif found.damaged:
        lines = "\n".join(f"  {line}" for line in found.damaged)
        _say(f"Damaged, and passed over for {found.path} (step {found.state['global_step']}):\n{lines}")
    return found


def say_changes(
    config: DictConfig, resumed: Path | None, state: Mapping[str, Any] | None, datamodule: VideoDataModule
) -> None:
    """Keeps what can be kept for the run to go on exactly, and says what else is another than when it began."""
    settle_threads(config, resumed)
    if state is not None:
        say_other_batches(config, state, datamodule)


def settle_threads(config: DictConfig, resumed: Path | None) -> None:
    """Gives this process the number of threads that its run began with, and says so where it cannot.

    Sums are added in another order by another number of threads.
    """
    if config.trainer.accelerator != "cpu":
        return
    recorded = None if resumed is None else read_record(resumed).get("threads")
    given = torch.get_num_threads()
    if recorded is not None and recorded != given:
        if "OMP_NUM_THREADS" not in os.environ and recorded <= len(os.sched_getaffinity(0)):
            torch.set_num_threads(recorded)
        else:
            _say(
                f"The run began with {recorded} threads and goes on with {given}: sums are added in another order, so "
                f"the result will not be the same to the last bit. OMP_NUM_THREADS={recorded} keeps it."
            )
    if num_processes(config) > 1:
        # Else Lightning divides the cores anew, in each process after the other.
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))


def say_other_batches(config: DictConfig, state: Mapping[str, Any], datamodule: VideoDataModule) -> None:
    """Says what becomes of a run that goes on with other processes or another batch size, if it does."""
    began = state["VideoDataModule"].get("batches")
    processes = num_processes(config)
    now = datamodule.batches(processes)
    if began is None or began == now:
        return
    same = began["global_batch"] == now["global_batch"]
    said = (
        "Each step sees the same videos as before, but draws and sums differ: the result is close to the other, not "
        "equal to it."
        if same
        else f"A step is {now['global_batch']} videos instead of {began['global_batch']} for the loss, batch norm and "
        f"the queue, an epoch {now['batches_per_epoch']} batches instead of {began['batches_per_epoch']}; it goes on "
        f"with the video where it stopped, and the learning rate stays. batch_size="
        f"{began['global_batch'] // processes} keeps the batch."
    )
    _say(
        f"The run began with {began['processes']} process(es) of {began['batch_size']} videos and goes on with "
        f"{now['processes']} of {now['batch_size']}. {said}"
    )


@rank_zero_only
def _say(text: str) -> None:
    print(text)


def is_finished(
    state: Mapping[str, Any], method: SSLMethod[Any], trainer: pl.Trainer, datamodule: VideoDataModule
) -> bool:
    """Whether a checkpoint has all the steps that are asked for."""
    method.trainer = trainer
    trainer.datamodule = datamodule  # type: ignore[attr-defined]
    return bool(state["global_step"] >= method.total_steps)
