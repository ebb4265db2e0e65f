"""Trains until the last step, or until somebody ends it; whatever happens, the run's folder says what."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ssl_video.callbacks.stop_signals import Stopped, StopSignals
from ssl_video.cli.loggers import close_loggers
from ssl_video.cli.rank_watch import ended_together
from ssl_video.cli.record import callbacks_of, record_end, record_stop
from ssl_video.cli.requeue import Requeue, end_stopped
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.run import job_id

SECONDS_TO_CLOSE = 30.0  # a logger, where SLURM is about to end the job


def fit(
    trainer: pl.Trainer,
    method: SSLMethod[Any],
    datamodule: VideoDataModule,
    *,
    run_dir: Path,
    checkpoint: Path | None,
    began: float,
    requeue: Requeue,
) -> None:
    """Trains, and ends a run that was asked to end as ``end_stopped`` says.

    The other processes then end with 0: who started them takes anything else for a fault, and ends the first one too.

    Args:
        trainer: with ``StopSignals`` among its callbacks.
        method: what learns.
        datamodule: from what.
        run_dir: the run's folder.
        checkpoint: what the run goes on from, if it does.
        began: when the job did, by ``time.monotonic``.
        requeue: whether the job may be started again.
    """
    started = time.monotonic()
    others = set(multiprocessing.active_children())
    stop = next(callback for callback in callbacks_of(trainer) if isinstance(callback, StopSignals))
    with stop.installed(since=began):
        try:
            with ended_together():
                trainer.fit(method, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        except Stopped:
            pass  # it is seen to when all is closed
        except SystemExit:  # Lightning's answer to a second Ctrl-C
            raise KeyboardInterrupt from None
        finally:
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()  # one that still decodes what nobody asks for any more; it ignores SIGTERM
            hurries = stop.reason not in (None, "SIGINT") and job_id() is not None
            close_loggers(trainer, run_dir, seconds=SECONDS_TO_CLOSE if hurries else None)
            record_end(run_dir, trainer, datamodule, seconds=time.monotonic() - started)
        if stop.reason is not None and trainer.is_global_zero:
            record_stop(run_dir, stop, step=trainer.global_step)
            end_stopped(stop, requeue=requeue)
