"""From a configuration to a result: features of each clip once, then every protocol on every backbone."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from omegaconf import DictConfig

from ssl_video.backbones.base import Backbone
from ssl_video.cli.baselines import build_backbones
from ssl_video.cli.features import asked_split, build_evaluation_data, extract, feature_set
from ssl_video.cli.official_splits import evaluate_splits
from ssl_video.cli.protocols import Chosen, choose_protocols, is_scorecard
from ssl_video.cli.results import Asked, Measured, predictions_table, protocol_report, scorecard_report
from ssl_video.cli.scorecard import format_skipped
from ssl_video.cli.training_protocols import run_training_protocol, tell_training_time
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.evaluation.clips import NORMAL, ClipSpec, Part
from ssl_video.evaluation.extract import Extracted
from ssl_video.evaluation.features import FeatureSet, ProtocolResult
from ssl_video.hub.weights import Weights
from ssl_video.utils.distributed import rank
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job, peak_memory_bytes

Results = dict[str, ProtocolResult]
PARTS: tuple[Part, Part] = ("train", "test")


def measure(config: DictConfig, job: Job, weights: Weights) -> Measured | None:
    """Runs what ``evaluation=`` asks for, on each of the official splits where several are named.

    Returns:
        The result; None in all processes but the first.

    Raises:
        InputError: the data does not allow it; of a scorecard, none of its protocols.
    """
    if config.splits is None:
        return _measure_one(config, job, weights)

    def report_of(own: DictConfig) -> dict[str, Any] | None:
        measured = _measure_one(own, job, weights, num_splits=len(config.splits))
        return None if measured is None else measured.report

    report = evaluate_splits(config, job, report_of, weights=weights)
    return None if report is None else Measured(report)


def _measure_one(config: DictConfig, job: Job, weights: Weights, *, num_splits: int = 1) -> Measured | None:
    started = time.monotonic()
    protocols = choose_protocols(config, job)
    backbones = build_backbones(config, weights, choices=job.choices)
    datamodule = build_evaluation_data(config)
    split = asked_split(datamodule)
    allowed, skipped = _allowed(protocols, datamodule, split, optional=is_scorecard(config))
    _predict_time(config, allowed, datamodule, backbones, split, num_splits=num_splits)
    extracted = extract(config, datamodule, backbones, _wanted(allowed), split)
    if rank() > 0:
        return None
    asked = Asked(
        config=config,
        job=job,
        weights=weights,
        datamodule=datamodule,
        split=split,
        videos=len(extracted["test"].rows),
        labelled_rows={part: own.rows[own.labels >= 0].numpy() for part, own in extracted.items()},
        unreadable=len(extracted["test"].unreadable),
        decode_seconds=sum(part.decode_seconds for part in extracted.values()),
    )
    reports, own = {}, {}
    for name, chosen in allowed.items():
        begun = time.monotonic()
        try:
            results = _run(config, chosen, datamodule, backbones, extracted, split)
        except InputError as fault:
            if not is_scorecard(config):
                raise
            skipped[name] = str(fault).replace("evaluation.", f"scorecard.protocols.{name}.")
            continue
        seconds = time.monotonic() - (begun if is_scorecard(config) else started)
        reports[name] = protocol_report(asked, chosen, results, seconds=seconds, peak_memory_bytes=peak_memory_bytes())
        own[name] = results[asked.row]
    if not reports:
        raise InputError(f"no protocol can be run. {' '.join(format_skipped(skipped))}")
    report = next(iter(reports.values()))
    if is_scorecard(config):
        report = scorecard_report(
            asked, reports, skipped, seconds=time.monotonic() - started, peak_memory_bytes=peak_memory_bytes()
        )
    return Measured(report, *_of_each_video(asked, allowed, own, extracted))


def _allowed(
    protocols: Mapping[str, Chosen], datamodule: VideoDataModule, split: str, *, optional: bool
) -> tuple[dict[str, Chosen], dict[str, str]]:
    """Protocols that the data has labels for, and why the others are left out."""
    fault = _label_fault(datamodule, split)
    if fault is None:
        return dict(protocols), {}
    allowed = {name: chosen for name, chosen in protocols.items() if not chosen.protocol.needs_labels}
    if len(allowed) < len(protocols) and not optional:
        raise InputError(fault)
    return allowed, {name: fault for name in protocols if name not in allowed}


def _label_fault(datamodule: VideoDataModule, split: str) -> str | None:
    """Why protocols that ask for labels cannot be run; None where they can."""
    label = datamodule.label
    if label is not None and datamodule.manifest.is_multi_label(label):
        return (
            f"the videos of {datamodule.name} have several classes at once in dataset.label={label}, and accuracy "
            "(top-1) is of one class per video; choose a column with one class each, or list one row per class and "
            "stretch of video."
        )
    if not datamodule.class_names:
        return (
            f"{datamodule.name} has no labels, and this protocol asks for them; give dataset.labels=FILE.csv with the "
            "columns path and label, or put the videos into one sub-folder per class."
        )
    for part in ("train", split):
        rows = datamodule.readable_rows(part)
        if len(rows) and not (datamodule.labels[rows] >= 0).any():
            return (
                f"none of the {len(rows)} {part} videos of {datamodule.name} has a label in dataset.label={label}; "
                "label some, or choose another column or split."
            )
    return None


def _wanted(protocols: Mapping[str, Chosen]) -> dict[Part, list[ClipSpec]]:
    """The clips that the protocols want of each part, each once."""
    return {
        part: list(
            dict.fromkeys(
                spec
                for chosen in protocols.values()
                if not chosen.trains
                for spec in chosen.protocol.clips(part).values()  # type: ignore[union-attr]
            )
        )
        for part in PARTS
    }


def _predict_time(
    config: DictConfig,
    protocols: Mapping[str, Chosen],
    datamodule: VideoDataModule,
    backbones: Mapping[str, Backbone],
    split: str,
    *,
    num_splits: int,
) -> None:
    """Says how long the protocols that train will take, before anything else takes its time."""
    for chosen in protocols.values():
        if chosen.trains and int(os.environ.get("LOCAL_RANK", "0")) == 0:
            protocol: Any = chosen.protocol
            try:
                tell_training_time(config, protocol, datamodule, backbones, split, num_splits=num_splits)
            except InputError:
                if not is_scorecard(config):
                    raise


def _run(
    config: DictConfig,
    chosen: Chosen,
    datamodule: VideoDataModule,
    backbones: Mapping[str, Backbone],
    extracted: Mapping[Part, Extracted],
    split: str,
) -> Results:
    """One protocol's results by backbone."""
    protocol: Any = chosen.protocol
    if chosen.trains:
        return run_training_protocol(config, protocol, datamodule, backbones, split)
    results = {}
    for name in backbones:
        train, test = (
            feature_set(extracted[part], name, protocol.clips(part), labelled_only=protocol.needs_labels)
            for part in PARTS
        )
        results[name] = protocol(train, test, num_classes=len(datamodule.class_names))
    return results


def _of_each_video(
    asked: Asked, protocols: Mapping[str, Chosen], own: Results, extracted: Mapping[Part, Extracted]
) -> tuple[pa.Table | None, FeatureSet | None]:
    """What ``predictions.parquet`` and ``features.safetensors`` hold."""
    has_labels = bool(len(asked.labelled_rows["test"]))
    predictions = predictions_table(asked, own) if has_labels else None
    stored = [chosen.protocol for chosen in protocols.values() if not chosen.trains]
    if not stored:
        return predictions, None
    clips = {NORMAL: stored[0].clips("test")[NORMAL]}  # type: ignore[union-attr]
    return predictions, feature_set(extracted["test"], asked.row, clips, labelled_only=has_labels)
