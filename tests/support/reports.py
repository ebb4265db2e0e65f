"""What an evaluation leaves in its folder, made up, for tests of the page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from ssl_video.report.contents import Evaluation, Predictions, Run

HEADER = {
    "dataset": "folder",
    "label": "label",
    "split": "test",
    "manifest_hash": "a" * 64,
    "videos": 6,
    "missing": 1,
    "undecodable": 2,
    "checkpoint": "last.ckpt sha256:" + "b" * 64,
    "backbone": "r3d_tiny",
}


def protocol_object(protocol: str, metrics: dict[str, float], **others: Any) -> dict[str, Any]:
    """A protocol's object with intervals of ± 0.1, and random weights at half the values."""
    return {
        "protocol": protocol,
        "protocol_version": 1,
        "variant": "default",
        **HEADER,
        "settings": {"num_clips": 2, "classes": 3},
        "metrics": metrics,
        "intervals": {name: [value - 0.1, value + 0.1] for name, value in metrics.items()},
        "baselines": {"random": {name: value / 2 for name, value in metrics.items()}},
        "baseline_intervals": {"random": {name: [value / 2 - 0.1, value / 2 + 0.1] for name, value in metrics.items()}},
        "details": {},
        "seconds": 1.5,
        **others,
    }


def scorecard(results: dict[str, dict[str, Any]], **others: Any) -> dict[str, Any]:
    """A scorecard of some protocols' objects."""
    return {
        "protocol": "scorecard",
        "protocol_version": 1,
        "variant": "default",
        **HEADER,
        "results": results,
        "skipped": {"shift": "not asked for"},
        "seconds": 12.0,
        **others,
    }


def made_up_predictions(
    *, videos: int, classes: int, train: int, seed: int = 0, labelled: bool = True, name: str = "class"
) -> Predictions:
    """Predictions that are right for about half of the videos, and ten neighbours each."""
    rng = np.random.default_rng(seed)
    names = np.array([f"{name} {number}" for number in range(classes)], dtype=object)
    labels = rng.integers(classes, size=videos)
    train_labels = rng.integers(classes, size=train)
    guessed = np.where(rng.random(videos) < 0.5, labels, rng.integers(classes, size=videos))
    nearest = rng.integers(train, size=(videos, 10))
    return Predictions(
        paths=[f"test_{number:05d}.mp4" for number in range(videos)],
        labels=names[labels].tolist() if labelled else [None] * videos,
        predicted={"knn": names[guessed].tolist()} if labelled else {},
        neighbours={"retrieval": [[f"train_{number:05d}.mp4" for number in row] for row in nearest]},
        neighbour_labels={"retrieval": [names[train_labels[row]].tolist() for row in nearest]} if labelled else {},
    )


def made_up_run(
    name: str,
    *,
    videos: int = 40,
    classes: int = 3,
    dimensions: int = 8,
    seed: int = 0,
    label_name: str = "class",
    results: dict[str, dict[str, Any]] | None = None,
) -> Run:
    """A run with a training, curves, a scorecard, predictions and features."""
    rng = np.random.default_rng(seed)
    found = results or {
        "knn": protocol_object("knn", {"top1": 0.5, "balanced_accuracy": 0.45}),
        "retrieval": protocol_object("retrieval", {"recall_at_1": 0.4, "median_rank": 3.0}),
    }
    evaluation = Evaluation(
        report=scorecard(found),
        predictions=made_up_predictions(videos=videos, classes=classes, train=videos, seed=seed, name=label_name),
        features=rng.standard_normal((videos, dimensions)).astype(np.float32),
    )
    record = {
        "choices": {"method": "moco", "backbone": "r3d_tiny", "dataset": "folder"},
        "steps": 20,
        "finished": True,
        "command": "train.py method=moco",
        "versions": {"torch": "2.0"},
    }
    curves = {"step": np.arange(20.0), "epoch": np.zeros(20), "train/loss": rng.random(20)}
    return Run(name=name, record=record, curves=curves, evaluations=[evaluation])


def write_evaluation(folder: Path, evaluation: Evaluation) -> Path:
    """The evaluation as files, as evaluate.py writes them."""
    folder.mkdir(parents=True)
    if evaluation.predictions is not None:
        found = evaluation.predictions
        columns: dict[str, Any] = {
            "video_id": list(found.paths),
            "path": list(found.paths),
            "label": pa.array(list(found.labels), pa.string()),
        }
        columns |= {f"{name}_prediction": list(values) for name, values in found.predicted.items()}
        columns |= {f"{name}_neighbours": list(values) for name, values in found.neighbours.items()}
        columns |= {f"{name}_neighbour_labels": list(values) for name, values in found.neighbour_labels.items()}
        pq.write_table(pa.table(columns), folder / "predictions.parquet")
    if evaluation.features is not None:
        save_file({"features": evaluation.features}, folder / "features.safetensors")
    (folder / "metrics.json").write_text(json.dumps(evaluation.report))
    return folder
