"""What an evaluation writes and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ssl_video.cli.weights import FROM_CHECKPOINT, Weights
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.evaluation.extract import Extracted
from ssl_video.evaluation.features import EvaluationProtocol, ProtocolResult
from ssl_video.metrics.intervals import bootstrap_interval
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job


def make_report(
    config: DictConfig,
    job: Job,
    weights: Weights,
    datamodule: VideoDataModule,
    protocol: EvaluationProtocol,
    split: str,
    test: Extracted,
    results: dict[str, ProtocolResult],
) -> dict[str, Any]:
    """The content of ``metrics.json``: no times of day and no absolute paths, so that a repetition gives the same."""
    asked = "random" if weights.state is None else "checkpoint"
    status = [datamodule.manifest.column("status")[row] for row in datamodule.splits[split]]
    missing = sum(value == "missing" for value in status)
    choice = job.choices["backbone"]
    name = weights.config["name"] if weights.config and choice == FROM_CHECKPOINT else choice
    return {
        "protocol": protocol.name,
        "protocol_version": protocol.version,
        "variant": "default",
        "dataset": datamodule.name,
        "label": datamodule.label,
        "split": split,
        "manifest_hash": datamodule.manifest.content_hash(),
        "videos": len(test.rows),
        "missing": missing,
        "undecodable": sum(value != "ok" for value in status) - missing + len(test.unreadable),
        "checkpoint": weights.label if weights.state is not None else f"random seed:{config.seed}",
        "backbone": name,
        "settings": {
            **results[asked].settings,
            "num_frames": config.num_frames,
            "frame_stride": config.frame_stride,
            "classes": len(datamodule.class_names),
        },
        "metrics": results[asked].metrics,
        "intervals": {key: list(bootstrap_interval(values)) for key, values in results[asked].per_video.items()},
        "baselines": {key: result.metrics for key, result in results.items() if key != asked},
    }


def result_folder(config: DictConfig, job: Job, weights: Weights) -> Path:
    """Where ``metrics.json`` goes; an existing one is never written over.

    Raises:
        InputError: the folder asked for holds one.
    """
    if config.run_dir is not None:
        folder = Path(config.run_dir)
        if (folder / "metrics.json").exists():
            raise InputError(f"run_dir={folder} holds a metrics.json already; choose another folder or move it away.")
        return folder
    protocol = job.choices["evaluation"]
    if weights.folder is not None:
        folder = weights.folder / "evaluations" / f"{protocol}_{config.dataset.name}"
    else:
        stem = "random" if weights.state is None else Path(config.checkpoint).stem
        folder = Path("outputs") / "evaluations" / f"{stem}_{protocol}_{config.dataset.name}"
    candidate, number = folder, 2
    while (candidate / "metrics.json").exists():
        candidate, number = folder.with_name(f"{folder.name}_{number}"), number + 1
    return candidate


def print_table(report: dict[str, Any]) -> None:
    """One row per backbone, one column per metric."""
    rows = {report["checkpoint"].split(" ")[0]: report["metrics"], **report["baselines"]}
    names = list(report["metrics"])
    width = max(len(name) for name in rows)
    print(
        f"\n{report['protocol']} on {report['dataset']} ({report['label']}), {report['videos']} {report['split']} "
        f"videos, {report['settings']['classes']} classes, backbone {report['backbone']}"
    )
    print(" " * width + "".join(f"  {name:>{max(len(name), 6)}}" for name in names))
    for label, metrics in rows.items():
        print(f"{label:<{width}}" + "".join(f"  {metrics[name]:>{max(len(name), 6)}.3f}" for name in names))
    for name, (low, high) in report["intervals"].items():
        print(f"  {name}: 95 % interval over videos {low:.3f} to {high:.3f}")
