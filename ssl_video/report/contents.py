"""What a page is made of: plain values of each run, read by the caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SCORECARD = "scorecard"


@dataclass(frozen=True)
class Predictions:
    """What an evaluation found for each test video.

    Attributes:
        paths: N paths, relative to the data set's root.
        labels: N class names, None where a video has none.
        predicted: per protocol N class names.
        neighbours: per protocol N lists of train paths, nearest first.
        neighbour_labels: per protocol their class names.
    """

    paths: Sequence[str]
    labels: Sequence[str | None]
    predicted: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    neighbours: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    neighbour_labels: Mapping[str, Sequence[Sequence[str | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """One ``metrics.json`` with what lies beside it.

    Attributes:
        report: its content.
        predictions: of the test videos, where they were kept.
        features: ``[N, D]`` of the same videos, where they were kept.
    """

    report: Mapping[str, Any]
    predictions: Predictions | None = None
    features: np.ndarray | None = None


@dataclass(frozen=True)
class Run:
    """A training run with its evaluations, or one evaluation alone.

    Attributes:
        name: as the page calls it; different for every run.
        record: ``run.json`` of the training; empty where there was none.
        curves: column of ``metrics.csv`` to its values per row, nan where a row has none; with ``step``.
        evaluations: the newest last.
        notes: what could not be read, in sentences.
    """

    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, np.ndarray] = field(default_factory=dict)
    evaluations: Sequence[Evaluation] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Measured:
    """All that one run's evaluations say of one data set and label.

    Attributes:
        run: the run's name.
        number: the run's place on the page, which gives it its colour.
        report: as of a scorecard: the header of the newest evaluation, and under ``results`` every protocol's object.
        predictions: those of all evaluations over the newest one's videos.
        features: ``[N, D]`` of the videos of ``predictions``.
        older: how many results are left out because a newer evaluation repeats their protocol.
    """

    run: str
    number: int
    report: Mapping[str, Any]
    predictions: Predictions | None
    features: np.ndarray | None
    older: int

    @property
    def results(self) -> Mapping[str, Mapping[str, Any]]:
        """Each protocol's object, by protocol and variant."""
        results: Mapping[str, Mapping[str, Any]] = self.report["results"]
        return results

    @property
    def official_splits(self) -> list[str]:
        """The official splits that the values are means over, by name; empty where only one was measured."""
        return list(self.report.get("splits") or {})


def results_of(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The protocols' objects of a ``metrics.json``, a scorecard's or a single one, by protocol and variant."""
    objects = report["results"].values() if "results" in report else [report]
    return {_key(report_of_one): report_of_one for report_of_one in objects}


def _key(report: Mapping[str, Any]) -> str:
    variant = str(report.get("variant", "default"))
    return str(report["protocol"]) + ("" if variant == "default" else f" ({variant})")


def measured(runs: Sequence[Run]) -> dict[tuple[str, str], list[Measured]]:
    """The runs' results by (data set, label): what stands in one table, in the order of the runs."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for number, run in enumerate(runs):
        own: dict[tuple[str, str], list[Evaluation]] = {}
        for evaluation in run.evaluations:
            where = (str(evaluation.report.get("dataset")), str(evaluation.report.get("label")))
            own.setdefault(where, []).append(evaluation)
        for where, evaluations in own.items():
            groups.setdefault(where, []).append(_merged(run, number, evaluations))
    return groups


def _merged(run: Run, number: int, evaluations: Sequence[Evaluation]) -> Measured:
    newest = evaluations[-1]
    # Other videos, or other labels of them, are another question: such an older evaluation is left out.
    same = [one for one in evaluations if _asks(one) == _asks(newest)]
    results: dict[str, Mapping[str, Any]] = {}
    skipped: dict[str, str] = {}
    for evaluation in same:
        results |= results_of(evaluation.report)
        skipped |= evaluation.report.get("skipped", {})
    told = sum(len(results_of(evaluation.report)) for evaluation in evaluations)
    header = {key: value for key, value in newest.report.items() if key not in _OF_ONE_PROTOCOL}
    report = {
        **header,
        "protocol": SCORECARD,
        "results": results,
        "skipped": {name: reason for name, reason in skipped.items() if name not in results},
    }
    with_features = [one for one in same if one.features is not None and one.predictions is not None]
    predictions = _merged_predictions([one.predictions for one in same if one.predictions is not None])
    features = with_features[-1].features if with_features else None
    if features is not None and (predictions is None or len(features) != len(predictions.paths)):
        features = None
    return Measured(run.name, number, report, predictions, features, told - len(results))


_OF_ONE_PROTOCOL = (
    *("settings", "metrics", "metrics_std", "intervals", "details", "changed"),
    *("baselines", "baselines_std", "baseline_intervals", "baseline_details"),
)


def _asks(evaluation: Evaluation) -> tuple[Any, ...]:
    return tuple(evaluation.report.get(key) for key in ("manifest_hash", "split", "checkpoint"))


def _merged_predictions(parts: Iterable[Predictions]) -> Predictions | None:
    """One table over the newest part's videos; parts over other videos stay out."""
    listed = list(parts)
    if not listed:
        return None
    newest = listed[-1]
    same = [part for part in listed if list(part.paths) == list(newest.paths)]
    return Predictions(
        paths=newest.paths,
        labels=newest.labels,
        predicted={name: values for part in same for name, values in part.predicted.items()},
        neighbours={name: values for part in same for name, values in part.neighbours.items()},
        neighbour_labels={name: values for part in same for name, values in part.neighbour_labels.items()},
    )


def preferred(names: Iterable[str], order: Sequence[str]) -> str | None:
    """The name that comes first in ``order``; one that is not in it comes after all that are."""
    available = list(names)
    if not available:
        return None
    return min(available, key=lambda name: (order.index(name) if name in order else len(order), available.index(name)))
