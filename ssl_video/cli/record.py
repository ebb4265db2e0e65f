"""What a training run writes about itself: at the start what is about to run, at the end what it took."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.trainer.states import TrainerStatus

from ssl_video.callbacks.sampler_flags import SamplerFlags
from ssl_video.callbacks.stop_signals import StopSignals
from ssl_video.cli.speed import describe_accumulation
from ssl_video.cli.strategies import describe_batch
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.decoding.quarantine import quarantine_file
from ssl_video.utils.config import plain
from ssl_video.utils.files import write_atomically
from ssl_video.utils.run import Job, environment, peak_memory_bytes, read_record, write_config, write_json, write_text

ROWS_AT_A_TIME = 65_536
_OF_THE_WHOLE_RUN = ("seconds", "stops", "resumed_at", "threads", "loggers")


def describe_start(
    config: DictConfig,
    job: Job,
    run_dir: Path,
    datamodule: VideoDataModule,
    *,
    checkpoint: Path | None,
    step: int | None = None,
) -> None:
    """Fills the run's folder and says in a few lines what is about to run.

    Args:
        config: of the job.
        job: what Hydra says of it.
        run_dir: the run's folder.
        datamodule: the data.
        checkpoint: what the run goes on from, if it does.
        step: of that.
    """
    counts = _counts(datamodule)
    run_dir.mkdir(parents=True, exist_ok=True)
    previous = read_record(run_dir) if checkpoint is not None else {}
    record = {"choices": job.choices, "overrides": job.overrides, **environment(config.trainer.accelerator)}
    record |= {"manifest_hash": datamodule.manifest.content_hash(), **counts, **_labels(datamodule), "finished": False}
    # What a resume goes on with, so that the record is that of the whole run.
    record |= {"seconds": 0.0, "stops": [], "resumed_at": []}
    record |= {key: previous[key] for key in _OF_THE_WHOLE_RUN if key in previous}
    record["resumed_at"] += [] if step is None else [step]
    write_config(run_dir / "config.yaml", plain(config))
    write_json(run_dir / "run.json", record)
    _write_videos(run_dir / "videos.parquet", datamodule)
    if counts["missing"] + counts["undecodable"]:
        _write_unreadable(run_dir / "unreadable_videos.tsv", datamodule)
    print(_summary(config, job, datamodule, counts))
    if (accumulation := describe_accumulation(config)) is not None:
        print(accumulation)
    if checkpoint is not None:
        print(f"Resuming from {checkpoint}" + ("" if step is None else f", after {step} steps"))
    if torch.cuda.is_available() and config.trainer.accelerator == "cpu":
        print("A GPU is there but not used; trainer=gpu uses it.")
    if (note := datamodule.check_motion()) is not None:
        print(note, file=sys.stderr)


def _write_videos(path: Path, datamodule: VideoDataModule) -> None:
    """The usable list, some rows at a time: it may hold a million, and a copy of them stays in memory for long."""
    table = datamodule.manifest.mapped_anew().table
    is_used = np.zeros(len(table), dtype=bool)
    is_used[datamodule.train_rows()] = True

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, table.schema) as writer:
            for start in range(0, len(table), ROWS_AT_A_TIME):
                some = slice(start, start + ROWS_AT_A_TIME)
                writer.write_table(table[some].filter(pa.array(is_used[some])))

    write_atomically(path, write)


def _counts(datamodule: VideoDataModule) -> dict[str, int]:
    status = datamodule.manifest.status_counts()
    used = len(datamodule.train_rows())
    return {
        "videos": len(datamodule.manifest),
        "missing": status.get("missing", 0),
        "undecodable": sum(count for name, count in status.items() if name not in ("ok", "missing")),
        "too_short": len(datamodule.too_short),
        "quarantined": len(datamodule.quarantined),
        "used": used,
    }


def _labels(datamodule: VideoDataModule) -> dict[str, Any]:
    """How labels were hidden, where they were: without it, numbers of different splits look comparable."""
    split, semi = datamodule.label_split, datamodule.semi
    if split is None or semi is None:
        return {}
    return {
        "split_family": split.family,
        "label_fraction": semi.label_fraction,
        "label_seed": semi.label_seed,
        "labeled": len(split.labeled),
        "unlabeled": len(split.unlabeled),
    }


def _summary(config: DictConfig, job: Job, datamodule: VideoDataModule, counts: dict[str, int]) -> str:
    notes = {
        "missing or unreadable, see unreadable_videos.tsv": counts["missing"] + counts["undecodable"],
        f"shorter than {datamodule.sampler.min_frames} frames, {_short_videos(datamodule)}": counts["too_short"],
        f"in quarantine, left out, see {quarantine_file(datamodule.cache_dir)}": counts["quarantined"],
        "files not in the CSV, left out": datamodule.manifest.num_left_out,
    }
    told = "".join(f"; {number} {what}" for what, number in notes.items() if number)
    if datamodule.label_split is not None:
        told += f"; {len(datamodule.label_split.labeled)} with labels (split: {datamodule.label_split.family})"
    sampler = datamodule.sampler
    return (
        f"{job.choices['method']} on {datamodule.name}: {counts['used']} of {counts['videos']} videos{told}\n"
        f"batch {config.batch_size} videos x {sampler.num_views} clips of {sampler.num_frames} frames\n"
        f"{describe_batch(config)}"
    )


def _short_videos(datamodule: VideoDataModule) -> str:
    policy = datamodule.sampler.end_policy
    return "left out" if policy == "error" else f"end_policy={policy}"


def _write_unreadable(path: Path, datamodule: VideoDataModule) -> None:
    bad = np.flatnonzero(~datamodule.manifest.is_usable())
    rows = datamodule.manifest.table.select(["path", "status", "reason"]).take(bad).to_pylist()
    write_text(path, "path\tstatus\treason\n" + "".join("\t".join(map(str, row.values())) + "\n" for row in rows))


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """Those of a trainer, which its type does not tell."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def _sampler_flags(trainer: pl.Trainer) -> dict[str, int]:
    """How many samples of the first process carry each flag of the sampler."""
    return next((dict(one.counts) for one in callbacks_of(trainer) if isinstance(one, SamplerFlags)), {})


def record_end(run_dir: Path, trainer: pl.Trainer, datamodule: VideoDataModule, *, seconds: float) -> None:
    """Adds what only the end knows, however it came (seconds of a resumed run add up), and says where the run lies."""
    if not trainer.is_global_zero:
        return
    finished = trainer.state.status == TrainerStatus.FINISHED
    record: dict[str, Any] = read_record(run_dir)
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    frames = progress.total.processed * datamodule.frames_per_batch()
    record |= {
        "finished": finished,
        "steps": trainer.global_step,
        "seconds": round(record["seconds"] + seconds, 1),
        "decoded_frames": frames * trainer.world_size,
        "sampler_flags": _sampler_flags(trainer),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    write_json(run_dir / "run.json", record)
    if finished:
        print(f"\nRun folder: {run_dir}")
        if datamodule.class_names:
            print(f"Evaluate it: python evaluate.py checkpoint={run_dir} evaluation=knn")


def record_stop(run_dir: Path, stop: StopSignals, *, step: int) -> None:
    """Adds why a run was ended, at which step, and how many seconds after it was asked to all was written and closed.

    The seconds are null where only another process was asked to.
    """
    record = read_record(run_dir)
    seconds = None if stop.seconds is None else round(stop.seconds, 3)
    record["stops"].append({"reason": stop.reason, "step": step, "seconds": seconds})
    write_json(run_dir / "run.json", record)
    print(f"Ended by {stop.reason} after {step} steps" + (f", safe after {seconds:.1f} s." if seconds else "."))
