"""``train.py`` and ``ssl-video train``: compose, check, build, fit."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import SIGTERMException

from ssl_video.cli.launch import launch
from ssl_video.cli.parts import PROVIDED, TrainSettings, build_checked, build_trainer, quiet
from ssl_video.cli.record import close_loggers, describe_start, record_end
from ssl_video.cli.resume import checkpoint_of, complete_overrides, is_finished, refuse_parallel_sweep, resumed_folder
from ssl_video.utils.checkpoint import read_checkpoint
from ssl_video.utils.errors import Terminated
from ssl_video.utils.run import Job, new_run_dir, refuse_existing


def main(argv: Sequence[str] | None = None) -> int:
    """Pre-trains as the command line says; returns the exit code."""
    quiet()
    words = sys.argv[1:] if argv is None else argv
    return launch("train", train, words, provided=PROVIDED, settings=TrainSettings, complete=complete_overrides)


def train(config: DictConfig, job: Job) -> Path:
    """Runs one training job and returns its folder."""
    refuse_parallel_sweep(config, job)
    resumed = resumed_folder(config, job)
    run_dir = resumed or new_run_dir(config.run_dir, job)
    if resumed is None:
        refuse_existing(run_dir)
    checkpoint = checkpoint_of(config, resumed)
    state = None if checkpoint is None else read_checkpoint(checkpoint)
    method, datamodule = build_checked(config, resumed=state)
    trainer = build_trainer(config, job, run_dir, datamodule)
    if state is not None and is_finished(state, method, trainer, datamodule):
        print(f"{run_dir} is finished: nothing to do.")
        return run_dir
    if trainer.is_global_zero:
        describe_start(config, job, run_dir, datamodule, checkpoint=checkpoint)
    started = time.monotonic()
    try:
        trainer.fit(method, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as end:  # Lightning's answer to SIGTERM, and to Ctrl-C
        raise (Terminated() if isinstance(end, SIGTERMException) else KeyboardInterrupt()) from None
    finally:
        close_loggers(trainer)
        record_end(run_dir, trainer, datamodule, seconds=time.monotonic() - started)
    return run_dir
