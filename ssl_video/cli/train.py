"""``train.py`` and ``ssl-video train``: compose, check, build, fit."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from omegaconf import DictConfig

from ssl_video.cli.fit import fit
from ssl_video.cli.launch import launch
from ssl_video.cli.loggers import describe_run
from ssl_video.cli.parts import PROVIDED, TrainSettings, build_checked, quiet
from ssl_video.cli.record import describe_start
from ssl_video.cli.resume import checkpoint_of, complete_overrides, is_finished, resumed_folder, say_changes
from ssl_video.cli.studies import score
from ssl_video.cli.trainer import build_trainer
from ssl_video.utils.held import held
from ssl_video.utils.run import Job, new_run_dir, refuse_existing, requeued


def main(argv: Sequence[str] | None = None) -> int:
    """Pre-trains as the command line says; returns the exit code."""
    quiet()
    words = sys.argv[1:] if argv is None else argv
    return launch(
        "train", train, words, provided=PROVIDED, settings=TrainSettings, complete=complete_overrides, score=score
    )


def train(config: DictConfig, job: Job) -> Path:
    """Runs one training job and returns its folder."""
    began = time.monotonic()
    resumed = resumed_folder(config, job)
    run_dir = resumed or new_run_dir(config.run_dir, job)
    if resumed is None:
        refuse_existing(run_dir)
    found = checkpoint_of(config, resumed)
    checkpoint, state = (None, None) if found is None else (found.path, found.state)
    method, datamodule = build_checked(config, resumed=state)
    say_changes(config, resumed, state, datamodule)
    trainer = build_trainer(config, job, run_dir, datamodule, goes_on=resumed is not None, state=state)
    if state is not None and is_finished(state, method, trainer, datamodule):
        print(f"{run_dir} is finished: nothing to do.")
        return run_dir
    with held(run_dir, insist=not requeued()) if trainer.is_global_zero else nullcontext():
        if trainer.is_global_zero:
            step = None if state is None else int(state["global_step"])
            describe_start(config, job, run_dir, datamodule, checkpoint=checkpoint, step=step)
            describe_run(trainer.loggers, run_dir)
        del found, state  # as large as the network with its optimizer
        fit(trainer, method, datamodule, run_dir=run_dir, checkpoint=checkpoint, began=began, requeue=config.requeue)
    return run_dir
