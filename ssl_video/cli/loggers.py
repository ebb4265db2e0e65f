"""Loggers of a run: which, under what names, and what they are told at its start, at its end and by an evaluation."""

from __future__ import annotations

import hashlib
import secrets
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from ssl_video.utils.config import build
from ssl_video.utils.run import Job, holds_run, last_checkpoint, read_config, read_record, write_json

# What of run.json W&B and TensorBoard show beside the configuration.
FACTS = (
    *("manifest_hash", "videos", "missing", "undecodable", "too_short", "quarantined", "used", "split_family"),
    *("labeled", "unlabeled", "command", "git_revision", "python", "versions", "device", "threads"),
)
JobType = Literal["train", "evaluate"]


def build_loggers(
    config: DictConfig, job: Job, run_dir: Path, *, resumed: bool, first_step: int | None = None
) -> list[Logger]:
    """The loggers that ``logger=`` names.

    Args:
        config: of the job.
        job: what Hydra says of it.
        run_dir: the run's folder.
        resumed: whether the run goes on; then its loggers do.
        first_step: the next step of a run that goes on from a checkpoint.
    """
    known = recorded_loggers(run_dir) if resumed else {}
    return _build(config, job, run_dir, known=known, job_type="train", first_step=first_step)


def _build(
    config: DictConfig, job: Job, run_dir: Path, *, known: Mapping[str, Any], job_type: JobType, first_step: int | None
) -> list[Logger]:
    # Absolute: W&B writes from a process of its own, whose working directory may be another.
    folder = str(run_dir.absolute())
    loggers: list[Logger] = []
    for kind, node in (config.logger or {}).items():
        if "_target_" not in node:
            continue  # csv: the trainer has that in any case
        if kind == "tensorboard":
            loggers.append(build(node, save_dir=folder, first_step=first_step))
        elif kind == "wandb":
            loggers.append(build(node, save_dir=folder, **_names(node, job, run_dir, known.get(kind), job_type)))
        else:
            loggers.append(build(node, save_dir=folder))
    return loggers


def _names(
    node: DictConfig, job: Job, run_dir: Path, known: Mapping[str, Any] | None, job_type: JobType
) -> dict[str, Any]:
    """What W&B calls a run: as it was called before, as the command line says, or by its folder."""
    choices = [job.choices[group] for group in ("method", "backbone", "dataset") if group in job.choices]
    given = known or {}
    return {
        "run_id": given.get("id") or secrets.token_hex(4),
        "name": given.get("name") or node.name or run_name(job, run_dir),
        "group": given.get("group") or node.group or run_group(job),
        "tags": list(dict.fromkeys([*choices, *node.tags])),
        "job_type": job_type,
    }


def run_name(job: Job, run_dir: Path) -> str:
    """As a run is listed: of a sweep its number and overrides, else what it trains and its folder."""
    return run_dir.name if job.sweep_dir is not None else f"{job.name} {run_dir.name}"


def run_group(job: Job) -> str:
    """Runs that are looked at together: those of a sweep, of an experiment, or of what is trained on what."""
    if job.sweep_dir is not None:
        return job.sweep_dir.name
    experiment = job.choices.get("experiment", "None")
    return job.name if experiment in ("None", "null") else experiment


def recorded_loggers(run_dir: Path) -> dict[str, Any]:
    """What ``run.json`` says of a run's loggers; nothing of a run that had none."""
    return dict(read_record(run_dir).get("loggers", {})) if holds_run(run_dir) else {}


def describe_run(loggers: Sequence[Logger], run_dir: Path) -> None:
    """Tells the loggers what runs, and ``run.json`` which runs of theirs it is; in the first process only."""
    record = read_record(run_dir)
    identities = {_kind(logger): logger.identity for logger in loggers if hasattr(logger, "identity")}
    write_json(run_dir / "run.json", record | {"loggers": {**record.get("loggers", {}), **identities}})
    facts = {name: record[name] for name in FACTS if name in record}
    described = {**read_config(run_dir), "choices": record["choices"], "run": {"folder": run_dir.name, **facts}}
    for logger in loggers:
        logger.log_hyperparams(described)


def _kind(logger: Logger) -> str:
    return {"WandbRun": "wandb", "TensorBoardRun": "tensorboard"}.get(type(logger).__name__, type(logger).__name__)


def close_loggers(trainer: pl.Trainer, run_dir: Path, *, seconds: float | None = None) -> None:
    """Ends what Lightning leaves open, with what a finished run made where that is to be kept.

    What goes wrong here is told and no more: the run's end, or why it was stopped, must not be lost over it.

    Args:
        trainer: of the run.
        run_dir: its folder.
        seconds: most that a logger may take; None: as long as it takes. The time that a job has left is for starting it
            again, and not for a server that is slow.
    """

    def end(logger: Logger) -> None:
        try:
            if _kind(logger) == "wandb" and trainer.state.finished:
                _keep_artifacts(logger, run_dir)
            _close(logger, exit_code=0 if trainer.state.finished else 1)
        except Exception as fault:
            print(f"{_kind(logger)} could not be closed: {type(fault).__name__}: {fault}", file=sys.stderr)

    for logger in trainer.loggers if trainer.is_global_zero else ():
        if seconds is None:
            end(logger)
            continue
        ending = threading.Thread(target=end, args=(logger,), daemon=True)
        ending.start()
        ending.join(seconds)
        if ending.is_alive():
            print(
                f"{_kind(logger)} was not closed within {seconds:g} s; what it has not sent lies in {run_dir}.",
                file=sys.stderr,
            )


def _close(logger: Any, *, exit_code: int) -> None:
    """Ends a logger, and says how to upload what is offline."""
    command = logger.sync_command() if hasattr(logger, "sync_command") else None
    if hasattr(logger, "close"):
        logger.close(exit_code=exit_code)
    if command is not None:
        print(f"W&B: offline. To upload: {command}")


# --- artifacts --------------------------------------------------------------------------------------------------------


def _keep_artifacts(logger: Any, run_dir: Path) -> None:
    """A training's manifest as what it used and its checkpoint as what it made; each names what it came from."""
    checkpoint = last_checkpoint(run_dir)
    if logger.artifacts == "none" or checkpoint is None:
        return
    import wandb

    record, run_id = read_record(run_dir), logger.identity["id"]
    logger.use(_manifest_artifact(record))
    files = [run_dir / "checkpoints" / "backbone.safetensors"]
    if logger.artifacts == "checkpoint":
        files.append(checkpoint)
    made = wandb.Artifact(
        f"checkpoint-{run_id}",
        type="model",
        metadata={
            "run": run_id,
            "steps": record.get("steps"),
            "manifest_hash": record["manifest_hash"],
            "git_revision": record["git_revision"],
            "sha256": {file.name: _sha256(file) for file in files},
        },
    )
    for file in files:
        made.add_file(str(file), name=file.name)
    logger.keep(made)


def _manifest_artifact(record: Mapping[str, Any]) -> Any:
    """The data set as its manifest's hash: the same for all that read the same videos, so that W&B joins them."""
    import wandb

    name = record.get("dataset") or record["choices"]["dataset"]
    made = wandb.Artifact(f"manifest-{name}", type="dataset", metadata={"manifest_hash": record["manifest_hash"]})
    with made.new_file("manifest_hash.txt") as file:
        file.write(record["manifest_hash"] + "\n")
    return made


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# --- evaluations ------------------------------------------------------------------------------------------------------


def log_evaluation(
    config: DictConfig, job: Job, *, run_dir: Path | None, step: int | None, folder: Path, report: Mapping[str, Any]
) -> None:
    """Logs a result to the run of its checkpoint, or, where that still trains or is none, to one grouped with it.

    Args:
        config: the evaluation's.
        job: what Hydra says of it.
        run_dir: the folder of the run that made the checkpoint, where there is one.
        step: that the checkpoint was written after, where it says so.
        folder: that the result was written to.
        report: content of ``metrics.json``.
    """
    if not any("_target_" in node for node in (config.logger or {}).values()):
        return
    record = read_record(run_dir) if run_dir is not None else {}
    known = dict(record.get("loggers", {}))
    ended = bool(record.get("finished"))
    where = run_dir if run_dir is not None and ended else folder
    if not ended and "wandb" in known:
        # Two processes must not write one run.
        group = known["wandb"]["group"]
        known["wandb"] = {"group": group, "name": f"{known['wandb']['name']} {folder.name}"}
    place = int(record.get("steps", 0)) if step is None else step
    for logger in _build(config, job, where, known=known, job_type="train" if ended else "evaluate", first_step=None):
        values = dict(flat_results(report))
        if _kind(logger) == "wandb":
            one: Any = logger
            one.log_evaluation(values, step=place)
            _link_evaluation(one, folder, report, record)
        else:
            logger.log_metrics(values, step=place)
        _close(logger, exit_code=0)


def flat_results(report: Mapping[str, Any]) -> list[tuple[str, float]]:
    """``("eval/ucf101/knn/top1", 0.5)``: every metric of every protocol, and of its baselines beside it."""
    values = []
    for key, one in report["results"].items() if "results" in report else [(report["protocol"], report)]:
        variant = str(one.get("variant", "default"))
        own = key if variant in ("default", key) or variant in key else f"{key}_{variant}"
        place = f"eval/{one['dataset']}/{own}"
        values += [(f"{place}/{name}", float(value)) for name, value in one["metrics"].items()]
        for baseline, metrics in one.get("baselines", {}).items():
            values += [(f"{place}/{name}_{baseline}", float(value)) for name, value in metrics.items()]
    return values


def _link_evaluation(logger: Any, folder: Path, report: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """The result as an artifact that names checkpoint and manifest, and, online, an edge from the checkpoint's."""
    if logger.artifacts == "none":
        return
    import wandb

    run_id = record.get("loggers", {}).get("wandb", {}).get("id")
    logger.use(_manifest_artifact(report))
    if run_id is not None and logger.mode == "online":
        logger.use(f"{logger.identity['project']}/checkpoint-{run_id}:latest")
    made = wandb.Artifact(
        f"evaluation-{logger.identity['id']}-{folder.name}",
        type="evaluation",
        metadata={
            "run": run_id,
            "checkpoint": report["checkpoint"],
            "manifest_hash": report["manifest_hash"],
            **dict(flat_results(report)),
        },
    )
    made.add_file(str(folder / "metrics.json"))
    logger.keep(made)
