"""``splits=[1,2,3]``: one evaluation per official split of a data set, and their mean as papers report it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from ssl_video.hub.weights import Weights
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job

Report = dict[str, Any]

NUM_SPLITS = 3  # UCF101 and HMDB51 alike
COUNTED = ("videos", "missing", "undecodable", "seconds")
# Of one split each, and of no meaning for the mean: the test videos of HMDB51's splits overlap, and the train videos
# of all splits do, so that the splits' intervals cannot be pooled. They stand with the splits.
OF_A_SPLIT = ("intervals", "baseline_intervals", "differences", "details", "baseline_details")


def evaluate_splits(
    config: DictConfig,
    job: Job,
    evaluate_one: Callable[[DictConfig], Report | None],
    *,
    weights: Weights | None = None,
) -> Report | None:
    """Evaluates each split that ``config.splits`` names and combines the results.

    Args:
        config: of the evaluation.
        job: the command, which names the data set in messages.
        evaluate_one: the evaluation of one split: a configuration with ``dataset.source.split`` set and no ``splits``
            to the content of its ``metrics.json``; None in all processes but the first.
        weights: what ``checkpoint=`` named; the result then says, under ``note``, if it has seen test videos.

    Returns:
        As ``combine``; None in all processes but the first.

    Raises:
        InputError: the data set has no official splits, or not these; or fewer than two are asked for.
    """
    splits = _checked_splits(config, job)
    reports = {}
    for split in splits:
        one = config.copy()
        OmegaConf.update(one, "splits", None)
        OmegaConf.update(one, "dataset.source.split", split)
        reports[str(split)] = evaluate_one(one)
    done = {split: report for split, report in reports.items() if report is not None}
    if not done:
        return None
    note = None if weights is None else seen_in_training(config, weights)
    return combine(done) | ({} if note is None else {"note": note})


def _checked_splits(config: DictConfig, job: Job) -> list[int]:
    splits = list(config.splits)
    if "split" not in config.dataset.source:
        raise InputError(
            f"splits={splits}: dataset={job.choices['dataset']} ({config.dataset.name}) has no official splits to "
            "average over; UCF101 and HMDB51 have. Leave splits out."
        )
    if not set(splits) <= set(range(1, NUM_SPLITS + 1)) or len(set(splits)) != len(splits):
        raise InputError(f"splits={splits} must be different numbers of the official splits, 1 to {NUM_SPLITS}.")
    if len(splits) < 2:
        raise InputError(f"splits={splits} must be two splits or more; for split 1 alone, dataset.source.split=1.")
    if "supervised" in config.baselines:
        raise InputError(
            "baselines=[supervised] learnt the labels of one split's train part, where other splits' test videos lie; "
            f"with splits={splits} leave it out, or evaluate each split by itself: dataset.source.split=N "
            "supervised_checkpoint=RUN_OF_SPLIT_N."
        )
    return splits


def seen_in_training(config: DictConfig, weights: Weights) -> str | None:
    """What to tell of a checkpoint that was trained on the train part of one of the splits; None where it was not.

    The train part of one split holds test videos of the others: they were seen, if without labels.
    """
    if weights.dataset is None or weights.dataset.get("name") != config.dataset.name:
        return None
    own = weights.dataset.get("source", {}).get("split")
    others = [split for split in config.splits if split != own]
    if own is None or not others:
        return None
    numbers = " and ".join(map(str, others))
    return (
        f"The checkpoint was trained on the train part of {config.dataset.name}'s split {own}, in which there are test "
        f"videos of split {numbers}: it has seen those (without their labels, unless its method learns from labels)."
    )


# --- combining, pure --------------------------------------------------------------------------------------------------


def combine(reports: Mapping[str, Report]) -> Report:
    """The results of several splits as one, the mean of each metric with the deviation over the splits.

    Args:
        reports: by split, content of a ``metrics.json``; of one protocol or of a scorecard.

    Returns:
        As the reports: ``metrics`` and ``baselines`` are means, ``metrics_std`` and ``baselines_std`` sample standard
        deviations, counts and seconds are sums, ``manifest_hash`` is a hash of the splits' hashes; what differs
        between the splits otherwise is left out. ``splits`` holds the reports themselves.

    Raises:
        ValueError: no reports, or reports of different protocols.
    """
    parts = list(reports.values())
    if len({(part["protocol"], "results" in part) for part in parts}) != 1:
        raise ValueError(f"reports of {[part['protocol'] for part in parts]} must be of one protocol.")
    combined = _combine_object(parts)
    if "results" in parts[0]:
        names = [name for name in parts[0]["results"] if all(name in part["results"] for part in parts)]
        combined["results"] = {name: _combine_object([part["results"][name] for part in parts]) for name in names}
        combined["skipped"] = _skipped(reports)
    return combined | {"splits": dict(reports)}


def _combine_object(parts: Sequence[Report]) -> Report:
    combined: Report = {}
    for key in parts[0]:
        values = [part[key] for part in parts if key in part]
        if key == "metrics":
            combined["metrics"], combined["metrics_std"] = _mean_and_std(values)
        elif key == "baselines":
            combined["baselines"], combined["baselines_std"] = {}, {}
            for name in _in_all(values):
                moments = _mean_and_std([value[name] for value in values])
                combined["baselines"][name], combined["baselines_std"][name] = moments
        elif key in OF_A_SPLIT:
            combined[key] = {}
        elif key in COUNTED:
            combined[key] = round(sum(values), 2)
        elif key == "peak_memory_bytes":
            combined[key] = max(values)
        elif key == "manifest_hash":
            combined[key] = hashlib.sha256(" ".join(values).encode()).hexdigest()
        elif key in ("decoding", "videos_per_class"):
            combined[key] = _sums(values)
        elif key == "settings":
            combined[key] = {name: values[0][name] for name in _in_all(values) if _equal(v[name] for v in values)}
        elif len(values) == len(parts) and _equal(values):
            combined[key] = values[0]
    return combined


def _mean_and_std(values: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Of the metrics that every split has; a mean over fewer would be of other videos."""
    columns = {name: [value[name] for value in values] for name in _in_all(values)}
    known = {name: column for name, column in columns.items() if None not in column}
    means = {name: float(np.mean(column)) for name, column in known.items()}
    return means, {name: float(np.std(column, ddof=1)) for name, column in known.items()}


def _sums(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: _sums([value[name] for value in values])
        if isinstance(values[0][name], Mapping)
        else round(sum(value[name] for value in values), 2)
        for name in _in_all(values)
    }


def _in_all(values: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in values[0] if all(name in value for value in values)]


def _equal(values: Iterable[Any]) -> bool:
    first, *others = values
    return all(other == first for other in others)


def _skipped(reports: Mapping[str, Report]) -> dict[str, str]:
    """Protocols that some split left out, with its reason."""
    return {
        name: f"split {split}: {reason}"
        for split, report in reports.items()
        for name, reason in report.get("skipped", {}).items()
    }
