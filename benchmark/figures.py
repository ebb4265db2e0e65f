"""The figures of the data path: what was measured, against what, and what is to be reached; as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from benchmark.blocks import Spread


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        what: was measured.
        against: what it is compared with.
        bound: whether the figure is to be ``least`` or ``most`` so much.
        reach: that much.
        value: the figure, over the rounds.
        unit: ``ratio of CPU time``, ``ratio of wall time``, ``MB`` and the like.
        wall: the same by wall time, where CPU time counts.
        details: rates and whatever else explains it, by name.
    """

    what: str
    against: str
    bound: Literal["least", "most"]
    reach: float
    value: Spread
    unit: str = "ratio of CPU time"
    wall: Spread | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_reached(self) -> bool:
        """By the median."""
        return self.value.median >= self.reach if self.bound == "least" else self.value.median <= self.reach

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        return {**asdict(self), "is_reached": self.is_reached}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Figure:
        """From the file of results."""
        values = {name: value for name, value in content.items() if name != "is_reached"}
        wall = values["wall"]
        return cls(**{**values, "value": Spread(**values["value"]), "wall": None if wall is None else Spread(**wall)})


def format_table(figures: Sequence[Figure]) -> str:
    """One line each, in Markdown."""
    head = ["what", "against", "reach", "measured", "range", "by wall time", "of", "reached"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for figure in figures:
        cells = [
            figure.what,
            figure.against,
            f"{'≥' if figure.bound == 'least' else '≤'} {figure.reach:g}",
            f"**{_number(figure.value.median)}**",
            f"{_number(figure.value.low)} to {_number(figure.value.high)}",
            "" if figure.wall is None else _number(figure.wall.median),
            figure.unit,
            "yes" if figure.is_reached else "**no**",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def format_details(figures: Sequence[Figure]) -> str:
    """What explains each figure, one line each."""
    lines = []
    for figure in figures:
        if figure.details:
            told = "; ".join(f"{name} {_shown(value)}" for name, value in figure.details.items())
            lines.append(f"- {figure.what}: {told}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 2 else f"{value:.3g}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
