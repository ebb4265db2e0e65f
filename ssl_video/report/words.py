"""What protocols and metrics are called and what they mean, for a reader who has never seen them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Title and one sentence per protocol; one that isn't here is shown by its own name.
PROTOCOLS: dict[str, tuple[str, str]] = {
    "knn": ("k nearest neighbours", "The nearest train videos vote for the class. Nothing is trained."),
    "linear_probe": ("Linear probe", "A linear classifier is fitted to the frozen features."),
    "linear_probe_in_loop": (
        "Linear probe in the loop",
        "A linear classifier is trained on the frozen backbone, with augmented clips.",
    ),
    "retrieval": (
        "Retrieval",
        "Does the neighbourhood of a test video hold a train video of its class? Recall at k looks at the k nearest.",
    ),
    "finetune": ("Fine-tuning", "The whole network is trained further on the labels."),
    "low_shot": ("Few labels", "The linear classifier sees only a share of the labels."),
    "n_shot": ("Few examples", "The classifier sees only a few videos of each class."),
    "temporal_probes": (
        "Use of time",
        "Accuracy falls on altered clips only if the features use what was altered; arrow of time, speed and order "
        "are read from the frozen features directly.",
    ),
    "shift": ("Robustness", "The same classifier on corrupted videos; drops are relative to clean ones."),
    "features": ("Feature statistics", "How the features fill their space, whatever the labels."),
}

# What a scorecard's first table shows of each protocol; all of one that isn't here.
HEADLINES: dict[str, tuple[str, ...]] = {
    "knn": ("top1",),
    "linear_probe": ("top1",),
    "linear_probe_in_loop": ("top1",),
    "finetune": ("top1",),
    "retrieval": ("recall_at_1", "recall_at_5", "recall_at_10"),
    "low_shot": ("top1_at_1_percent", "top1_at_10_percent"),
    "temporal_probes": ("drop_frozen", "drop_shuffled", "drop_reversed", "arrow_of_time", "speed", "order"),
    "shift": ("mean_relative_drop",),
    "features": ("rankme", "effective_rank", "alignment", "uniformity"),
}

METRICS: dict[str, str] = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy (mean over classes)",
    "mean_average_precision": "mean average precision",
    "median_rank": "median rank of the first hit (1 is best)",
    "rankme": "RankMe (effective number of dimensions)",
    "effective_rank": "effective rank",
    "alignment": "alignment (distance of clips of one video; lower is closer)",
    "uniformity": "uniformity (lower is more evenly spread)",
    "mean_relative_drop": "mean relative drop over all corruptions",
    "top1_frozen": "top-1, the middle frame held",
    "top1_shuffled": "top-1, frames shuffled",
    "top1_reversed": "top-1, frames backwards",
    "drop_frozen": "lost with the middle frame held",
    "drop_shuffled": "lost with shuffled frames",
    "drop_reversed": "lost backwards",
    "arrow_of_time": "arrow of time: forwards or backwards?",
    "speed": "speed: at which was it shown?",
    "order": "order: which of two clips is first?",
    "mean_cosine": "mean cosine between videos (1: all alike)",
    "std_mean": "deviation per dimension, mean (1 fills the sphere)",
    "std_min": "deviation per dimension, least",
    "dead_dimensions": "dimensions that hardly vary",
}

# Metrics that are no share of videos and carry their own unit.
_NO_SHARE = re.compile(r"rank|alignment|uniformity|cosine|_std|seconds|bytes|margin|loss|^std")


def protocol_title(key: str) -> str:
    """The title of ``knn`` or ``knn (variant)``."""
    name, _, variant = key.partition(" (")
    title = PROTOCOLS.get(name, (name.replace("_", " "), ""))[0]
    return f"{title} ({variant.replace('_', ' ')}" if variant else title


def protocol_sentence(key: str) -> str:
    """What the protocol does, in a sentence; empty where nobody has written one."""
    return PROTOCOLS.get(key.partition(" (")[0], ("", ""))[1]


def is_headline(key: str, metric: str) -> bool:
    """Whether a metric stands in the first table."""
    headlines = HEADLINES.get(key.partition(" (")[0])
    return headlines is None or metric in headlines


def metric_title(name: str) -> str:
    """The metric in words."""
    if name in METRICS:
        return METRICS[name]
    if found := re.fullmatch(r"recall_at_(\d+)", name):
        return f"recall at {found[1]}"
    if found := re.fullmatch(r"top1_at_([\d_]+)_percent", name):
        return f"top-1, {found[1].replace('_', '.')} % of the labels"
    if found := re.fullmatch(r"top1_(\d+)_shot", name):
        return f"top-1, {found[1]} labelled per class"
    if name.startswith("relative_drop_"):
        return f"share lost to {name.removeprefix('relative_drop_').replace('_', ' ')}"
    if name.startswith("top1_"):
        return f"top-1, {name.removeprefix('top1_').replace('_', ' ')}"
    return name.replace("_", " ")


def is_share(name: str) -> bool:
    """Whether a metric is a fraction in [0, 1], shown in per cent; all others carry a unit of their own."""
    return name.startswith("top") or _NO_SHARE.search(name) is None


def shown(name: str, value: float | None) -> str:
    """A metric's value: shares in per cent with one decimal, others with three significant digits or more."""
    if value is None or value != value:
        return "–"
    if is_share(name):
        return f"{100 * value:.1f} %"
    return f"{value:.0f}" if value == int(value) else f"{value:.4g}"


def shown_interval(name: str, interval: tuple[float, float] | list[float] | None) -> str:
    """An interval in the unit of its metric, or nothing."""
    if interval is None:
        return ""
    low, high = (shown(name, value).removesuffix(" %") for value in interval)
    return f"{low} to {high}"


def listed(names: Sequence[str]) -> str:
    """``1, 2 and 3``."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def setting_text(value: object) -> str:
    """A setting's value as a configuration writes it; groups of settings, however deep, in round brackets.

    ``{"resize": 128, "crop": {"size": 112, "flip": False}}`` is ``(resize=128, crop=(size=112, flip=false))``.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "none" if not value else f"({', '.join(f'{name}={setting_text(one)}' for name, one in value.items())})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(setting_text, value))}]"
    return str(value)
