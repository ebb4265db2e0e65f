"""Measures one finished run for the benchmark: features once, then every protocol and label.

    python -m benchmark.measure RUN --label motion --label appearance --output cell.json

The numbers are those of ``evaluate.py`` with the same protocol and ``evaluation.num_clips=5``, whose
features come from the cache.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ssl_video.backbones.base import Backbone
from ssl_video.cli.baselines import build_backbones
from ssl_video.cli.features import asked_split, build_evaluation_data, extract, feature_set
from ssl_video.cli.parts import PROVIDED, EvaluateSettings, quiet, share_cores
from ssl_video.cli.weights import complete_overrides
from ssl_video.evaluation.clips import ClipSpec, Part
from ssl_video.hub.weights import read_weights
from ssl_video.utils.config import build, compose_checked
from ssl_video.utils.run import read_record, write_json

PROTOCOLS = {"knn": "top1", "linear_probe": "top1", "retrieval": "recall_at_1"}
NUM_CLIPS = 5


def main() -> int:
    """Writes the cell's result; returns the exit code."""
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--label", action="append", required=True, help="label column; may be repeated")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    scores = measure(given.run, given.label, given.overrides)
    record = read_record(given.run)
    write_json(given.output, {**described(record), "scores": scores})
    return 0


def measure(run: Path, labels: list[str], overrides: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics by ``<label> <protocol>``, then by backbone (``checkpoint``, ``random``)."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    backbones: dict[str, Backbone] = {}
    clips = [ClipSpec(num_clips=NUM_CLIPS)]
    for label in labels:
        config = composed(run, label, "knn", overrides)
        share_cores(config)
        datamodule = build_evaluation_data(config)
        backbones = backbones or build_backbones(config, read_weights(str(run)))
        # Of the second label on they come from the cache.
        wanted: dict[Part, list[ClipSpec]] = {"train": clips, "test": clips}
        train, test = extract(config, datamodule, backbones, wanted, asked_split(datamodule)).values()
        for protocol in PROTOCOLS:
            built = build(composed(run, label, protocol, [*overrides, f"evaluation.num_clips={NUM_CLIPS}"]).evaluation)
            scores[f"{label} {protocol}"] = {
                name: built(
                    feature_set(train, name, built.clips("train")),
                    feature_set(test, name, built.clips("test")),
                    num_classes=len(datamodule.class_names),
                ).metrics
                for name in backbones
            }
    return scores


def composed(run: Path, label: str, protocol: str, overrides: list[str]) -> Any:
    """The evaluation's checked configuration, as ``evaluate.py`` composes it."""
    words = [f"checkpoint={run}", f"dataset.label={label}", f"evaluation={protocol}", *overrides]
    return compose_checked("evaluate", complete_overrides(words), provided=PROVIDED, settings=EvaluateSettings)


def described(record: dict[str, Any]) -> dict[str, Any]:
    """What the run says of itself."""
    return {
        "method": record["choices"]["method"],
        "backbone": record["choices"]["backbone"],
        "steps": record["steps"],
        "seconds": record["seconds"],
        "frames_per_second": round(record["decoded_frames"] / record["seconds"], 1),
        "peak_memory_bytes": record["peak_memory_bytes"],
        "revision": record.get("git_revision"),
        "threads": record.get("threads"),
        "device": record.get("device"),
        "torch": record.get("versions", {}).get("torch"),
    }


if __name__ == "__main__":
    sys.exit(main())
