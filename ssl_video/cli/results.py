"""What an evaluation writes: ``metrics.json``, and what the test videos were taken for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from omegaconf import DictConfig
from safetensors.torch import save_file

from ssl_video.cli.baselines import baseline_files
from ssl_video.cli.protocols import Chosen
from ssl_video.cli.weights import FROM_CHECKPOINT
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.evaluation.clips import Part
from ssl_video.evaluation.features import FeatureSet, ProtocolResult
from ssl_video.hub.weights import Weights
from ssl_video.metrics.intervals import balanced_accuracy_interval, bootstrap_interval, paired_difference_interval
from ssl_video.utils.config import plain
from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_atomically
from ssl_video.utils.run import Job, write_json

Rows = NDArray[np.int64]

SCORECARD_VERSION = 1
SHOWN_NEIGHBOURS = 10


@dataclass(frozen=True)
class Measured:
    """A result before it is written.

    Attributes:
        report: content of ``metrics.json``.
        predictions: one row per test video; see ``predictions_table``. None over several official splits.
        features: of the test videos, in the order of ``predictions``; None where no protocol stores features.
    """

    report: dict[str, Any]
    predictions: pa.Table | None = None
    features: FeatureSet | None = None


@dataclass(frozen=True)
class Asked:
    """What all protocols of one command share.

    Attributes:
        config: the evaluation's configuration.
        job: the command.
        weights: what ``checkpoint=`` named.
        datamodule: the data.
        split: the split that was asked about.
        videos: number of its videos that were read.
        labelled_rows: by part, ``[N]`` rows of the manifest that have a label and were read, in the order of the
            protocols' arrays.
        unreadable: number of its videos that could be read when they were indexed, and now could not.
        decode_seconds: time that reading and decoding took, summed over the loader's processes.
    """

    config: DictConfig
    job: Job
    weights: Weights
    datamodule: VideoDataModule
    split: str
    videos: int
    labelled_rows: dict[Part, Rows]
    unreadable: int
    decode_seconds: float

    @property
    def row(self) -> str:
        """Name of the row that is asked about, beside which the others are baselines."""
        return "random" if self.weights.state is None else "checkpoint"

    def header(self) -> dict[str, Any]:
        """What was measured on what: the same for every protocol of the command."""
        manifest = self.datamodule.manifest
        status = manifest.table.column("status").take(self.datamodule.splits[self.split]).to_pylist()
        missing = sum(value == "missing" for value in status)
        choice = self.job.choices["backbone"]
        config = self.weights.config
        return {
            "dataset": self.datamodule.name,
            "label": self.datamodule.label,
            "split": self.split,
            "manifest_hash": manifest.content_hash(),
            "videos": self.videos,
            "missing": missing,
            "undecodable": sum(value != "ok" for value in status) - missing + self.unreadable,
            "checkpoint": self.weights.label if self.weights.state is not None else f"random seed:{self.config.seed}",
            "backbone": config["name"] if config and choice == FROM_CHECKPOINT else choice,
        }

    def videos_per_class(self) -> dict[str, dict[str, int]]:
        """Readable videos of each class in the train part and in the split asked."""
        labels = self.datamodule.labels
        counts = {part: Counter(labels[self.datamodule.readable_rows(part)].tolist()) for part in ("train", self.split)}
        return {
            name: {part: counts[part][number] for part in counts}
            for number, name in enumerate(self.datamodule.class_names)
        }


def protocol_report(
    asked: Asked, chosen: Chosen, results: dict[str, ProtocolResult], *, seconds: float, peak_memory_bytes: int
) -> dict[str, Any]:
    """The object of one protocol: no times of day and no absolute paths, so that a repetition gives the same."""
    own = results[asked.row]
    header = asked.header()
    lost = len(own.details.get("unreadable_rows", []))
    others = {name: result for name, result in results.items() if name != asked.row}
    files = baseline_files(asked.config)
    return {
        "protocol": chosen.protocol.name,
        "protocol_version": chosen.protocol.version,
        "variant": chosen.variant,
        "changed": chosen.changed,
        **header,
        "videos": header["videos"] - lost,
        "undecodable": header["undecodable"] + lost,
        "settings": {
            **own.settings,
            # A protocol that trains says which clips it learns from; the others see those of the checkpoint.
            **({} if chosen.trains else {key: asked.config[key] for key in ("num_frames", "frame_stride")}),
            "input_transform": plain(asked.config.input_transform),
            "classes": len(asked.datamodule.class_names),
        },
        "metrics": own.metrics,
        "intervals": _intervals(own, asked),
        "baselines": {name: result.metrics for name, result in others.items()},
        "baseline_checkpoints": {name: files[name] for name in others},
        "baseline_intervals": {name: _intervals(result, asked) for name, result in others.items()},
        "differences": {name: _differences(own, result) for name, result in others.items()},
        "details": own.details,
        "baseline_details": {name: result.details for name, result in others.items() if result.details},
        "videos_per_class": asked.videos_per_class(),
        "decoding": {"seconds": round(asked.decode_seconds, 2)},
        "seconds": round(seconds, 2),
        "peak_memory_bytes": peak_memory_bytes,
    }


def scorecard_report(
    asked: Asked,
    reports: dict[str, dict[str, Any]],
    skipped: dict[str, str],
    *,
    seconds: float,
    peak_memory_bytes: int,
) -> dict[str, Any]:
    """All protocols' objects under one header."""
    return {
        "protocol": "scorecard",
        "protocol_version": SCORECARD_VERSION,
        "variant": "default",
        **asked.header(),
        "results": reports,
        "skipped": skipped,
        "decoding": {"seconds": round(asked.decode_seconds, 2)},
        "seconds": round(seconds, 2),
        "peak_memory_bytes": peak_memory_bytes,
    }


def answered_rows(result: ProtocolResult, asked: Asked) -> Rows:
    """Rows of the videos that a result's arrays speak of; a protocol that trains reads its videos itself."""
    rows = asked.labelled_rows["test"]
    return rows[~np.isin(rows, result.details.get("unreadable_rows", []))]


def _intervals(result: ProtocolResult, asked: Asked) -> dict[str, list[float]]:
    """Bootstrap intervals over videos of every metric that is a mean over them, and of the mean over classes."""
    intervals = {name: list(bootstrap_interval(values)) for name, values in result.per_video.items()}
    if "balanced_accuracy" in result.metrics and result.predictions is not None:
        labels = asked.datamodule.labels[answered_rows(result, asked)]
        hits = (result.predictions == labels).astype(float)
        intervals["balanced_accuracy"] = list(balanced_accuracy_interval(hits, labels))
    return intervals


def _differences(own: ProtocolResult, other: ProtocolResult) -> dict[str, list[float]]:
    """Intervals of what the row asked about is ahead of another one, video by video."""
    return {
        name: list(paired_difference_interval(values, other.per_video[name]))
        for name, values in own.per_video.items()
        # Of videos that one network saw and the other could not read any more there is no difference.
        if name in other.per_video and len(other.per_video[name]) == len(values)
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


def predictions_table(asked: Asked, results: dict[str, ProtocolResult]) -> pa.Table:
    """One row per labelled test video: its label, what each protocol took it for, and its nearest train videos.

    What a protocol could not read any more, it took for nothing (null).

    Args:
        asked: what the protocols share.
        results: by the protocol's name, of the row asked about.
    """
    train_rows, test_rows = asked.labelled_rows["train"], asked.labelled_rows["test"]
    manifest, data = asked.datamodule.manifest, asked.datamodule
    paths, video_ids = manifest.column("path"), manifest.column("video_id")

    def label(row: int) -> str | None:
        number = int(data.labels[row])
        return data.class_names[number] if number >= 0 else None

    columns: dict[str, Any] = {
        "video_id": [video_ids[row] for row in test_rows],
        "path": [paths[row] for row in test_rows],
        "label": pa.array([label(row) for row in test_rows], pa.string()),
    }
    for name, result in results.items():
        if result.predictions is not None:
            named = dict(zip(answered_rows(result, asked).tolist(), result.predictions.tolist(), strict=True))
            columns[f"{name}_prediction"] = pa.array(
                [data.class_names[named[row]] if row in named else None for row in test_rows.tolist()], pa.string()
            )
        if result.neighbours is not None:
            nearest = train_rows[result.neighbours[:, :SHOWN_NEIGHBOURS]]
            columns[f"{name}_neighbours"] = [[paths[row] for row in rows] for rows in nearest]
            columns[f"{name}_neighbour_labels"] = [[label(row) for row in rows] for rows in nearest]
    return pa.table(columns)


def write_results(folder: Path, measured: Measured) -> None:
    """Writes ``metrics.json`` last: where it stands, all of it stands."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions, features = measured.predictions, measured.features
    if predictions is not None:
        write_atomically(folder / "predictions.parquet", lambda path: pq.write_table(predictions, path))
    if features is not None:
        tensors = {"features": features.video_features().float().contiguous()}
        write_atomically(folder / "features.safetensors", lambda path: save_file(tensors, path))
    write_json(folder / "metrics.json", measured.report)
