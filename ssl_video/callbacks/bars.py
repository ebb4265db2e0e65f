"""Bars that a run's values must not cross, and what it means when one does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ssl_video.utils.errors import InputError

Action = Literal["off", "warn", "stop"]

COLLAPSED = "all clips get nearly the same {what}: the network has collapsed, or is about to"
COLLAPSE_REMEDY = (
    "Look at train/loss and {others}; lower optimizer.lr, and compare the method's own guards against collapse "
    "(predictor, momentum, batch norm, temperature) with conf/method"
)
FEATURES = {"what": "features", "others": "health/feature_rankme"}
EMBEDDING = {"what": "embeddings", "others": "health/embedding_rankme"}

# By value: what it usually means that its bar is crossed, and what to do.
ADVICE: dict[str, tuple[str, str]] = {
    "health/feature_std": (COLLAPSED.format(**FEATURES), COLLAPSE_REMEDY.format(**FEATURES)),
    "health/feature_dead_share": (
        "many features are the same for all clips, so those units have died (a learning rate far too high)",
        "Lower optimizer.lr, or let scheduler warm up for longer",
    ),
    "health/feature_rankme": (
        "features lie along a few directions only (dimensional collapse)",
        COLLAPSE_REMEDY.format(what="features", others="health/feature_std"),
    ),
    "health/feature_uniformity": (COLLAPSED.format(**FEATURES), COLLAPSE_REMEDY.format(**FEATURES)),
    "health/embedding_std": (COLLAPSED.format(**EMBEDDING), COLLAPSE_REMEDY.format(**EMBEDDING)),
    "health/embedding_rankme": (
        "embeddings lie along a few directions only (dimensional collapse)",
        COLLAPSE_REMEDY.format(what="embeddings", others="health/embedding_std"),
    ),
    "health/embedding_uniformity": (COLLAPSED.format(**EMBEDDING), COLLAPSE_REMEDY.format(**EMBEDDING)),
    "health/loss_spread": (
        "the loss hardly depends on the videos any more: a temperature far too high, or a collapse",
        "Check method.temperature and optimizer.lr, and look at health/embedding_std",
    ),
    "health/gradient_norm": (
        "the steps are nearly nothing (a loss that no longer depends on the network, a temperature far too high) or "
        "far too large (a learning rate far too high)",
        "Look at train/loss: flat means the first, jumping the second; check method.temperature, optimizer.lr and "
        "scheduler, and set trainer.gradient_clip_val where single steps are too large",
    ),
    "health/ema_distance": (
        "the momentum copy does not lag behind the network at all, so it is no slow teacher (method.momentum=0), or "
        "lies so far behind that it knows nothing of it (a learning rate far too high)",
        "Compare method.momentum and optimizer.lr with conf/method",
    ),
    "health/queue_noise_share": (
        "most negatives are still the noise that the queue begins with",
        "Lower method.queue_length, raise batch_size, or set method.fill_queue_first=true",
    ),
    "health/queue_oldest_steps": (
        "the oldest keys are of a network that has changed much since",
        "Lower method.queue_length, raise batch_size, or raise method.momentum",
    ),
    "data/decode_failures_share": (
        "many videos cannot be read, and others stand in for them",
        "See decode_failures.csv in the run folder; `ssl-video doctor` checks a data set",
    ),
    "time/data_wait_share": (
        "the device waits for videos most of the time",
        "Raise dataset.num_workers or dataset.clips_per_open, or make small copies (`ssl-video prepare`); "
        "`ssl-video bench` says what would help",
    ),
    "val/knn_top1": (
        "the network does not learn what tells the classes apart, or has collapsed",
        "Compare it with val/knn_top1_random, and look at health/feature_std and train/loss",
    ),
}


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        value: full name, such as ``health/feature_std``.
        below: crossed by values below it; None for a bar that is not crossed from this side.
        above: crossed by values above it, likewise.
        from_step: steps before do not count: a network that has hardly begun says little.
        in_a_row: measurements that must lie beyond it, one after the other.
        action: what happens then: ``warn`` says so once, ``stop`` ends the run with exit code 1, ``off`` does nothing.
    """

    value: str
    below: float | None = None
    above: float | None = None
    from_step: int = 0
    in_a_row: int = 1
    action: Action = "warn"

    def __post_init__(self) -> None:
        """Refuse what is no bar."""
        if self.action not in get_args(Action):
            raise InputError(f"{self.value}: action={self.action} must be off, warn or stop.")
        if self.action != "off" and self.below is None and self.above is None:
            raise InputError(f"{self.value}: a bar needs below= or above=, or action=off.")
        if self.in_a_row < 1 or self.from_step < 0:
            raise InputError(
                f"{self.value}: in_a_row={self.in_a_row} must be at least 1, from_step={self.from_step} at least 0."
            )

    def side(self, value: float) -> str | None:
        """On which side a value lies beyond the bar, in words; a value that is no number lies beyond every bar."""
        if math.isnan(value):
            return "which is no number"
        if self.below is not None and value < self.below:
            return f"below the bar of {self.below:g}"
        if self.above is not None and value > self.above:
            return f"above the bar of {self.above:g}"
        return None


def read_bars(given: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    """Bars from plain values, by the value's name without its slash: ``health_feature_std``.

    Raises:
        InputError: an unknown value or key.
    """
    names = {name.replace("/", "_"): name for name in ADVICE}
    keys = [key for key in Bar.__dataclass_fields__ if key != "value"]
    bars = []
    for name, values in given.items():
        if name not in names:
            raise InputError(f"bars.{name}: there is no such value; there are {', '.join(sorted(names))}.")
        unknown = [key for key in values if key not in keys]
        if unknown:
            raise InputError(f"bars.{name}.{unknown[0]}: a bar has no such key; it has {', '.join(keys)}.")
        bars.append(Bar(names[name], **values))
    return bars


class BarWatch:
    """Looks at values and says that a bar is crossed.

    Args:
        bars: to be watched.
    """

    def __init__(self, bars: list[Bar]) -> None:
        self.bars = [bar for bar in bars if bar.action != "off"]
        self._beyond = dict.fromkeys((bar.value for bar in self.bars), 0)
        self._told: set[str] = set()

    def look(self, values: Mapping[str, float], *, step: int) -> list[tuple[Bar, str]]:
        """The bars that are crossed, each with a sentence on it; one that only warns is told once.

        Args:
            values: measured at this step; a bar whose value is not among them is not looked at.
            step: optimizer steps that are done.
        """
        crossed = []
        for bar in self.bars:
            if bar.value not in values or step < bar.from_step or bar.value in self._told:
                continue
            side = bar.side(values[bar.value])
            self._beyond[bar.value] = 0 if side is None else self._beyond[bar.value] + 1
            if side is not None and self._beyond[bar.value] >= bar.in_a_row:
                if bar.action == "warn":  # a run that goes on after it was stopped is stopped again
                    self._told.add(bar.value)
                crossed.append((bar, sentence(bar, values[bar.value], side, step=step)))
        return crossed

    def state_dict(self) -> dict[str, Any]:
        """What has been told, and what is about to be."""
        return {"told": sorted(self._told), "beyond": self._beyond}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there; bars may be others now."""
        self._told = set(state["told"])
        self._beyond |= {name: count for name, count in state["beyond"].items() if name in self._beyond}


def sentence(bar: Bar, value: float, side: str, *, step: int) -> str:
    """What a user is told: the value, the bar, what it usually means, and what to do."""
    key = f"callbacks.health.bars.{bar.value.replace('/', '_')}"
    means, remedy = ADVICE[bar.value]
    return f"{bar.value} is {value:.3g} after step {step}, {side}. Usually {means}. {remedy}. (The bar: {key}.)"
