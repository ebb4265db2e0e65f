"""What a check found, and how findings are printed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "fault"]
WIDTH = 110


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: ``ok``; ``note``, which works but costs something; ``fault``, which will end or spoil a run.
        name: what was looked at, in a word or two.
        told: what was found, with its numbers.
        fix: what to do about it, where there is something to do.
    """

    level: Level
    name: str
    told: str
    fix: str = ""


def format_findings(findings: Sequence[Finding]) -> str:
    """A line for each finding, the fix beneath it, and the sum at the end."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines: list[str] = []
    for finding in findings:
        start = f"{finding.level:<5}  {finding.name:<{width}}  "
        lines += _wrapped(start, finding.told)
        if finding.fix:
            lines += _wrapped(" " * len(start) + "→ ", finding.fix)
    faults = sum(finding.level == "fault" for finding in findings)
    notes = sum(finding.level == "note" for finding in findings)
    lines += ["", _sum(faults, notes)]
    return "\n".join(lines)


def _wrapped(start: str, text: str) -> list[str]:
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, max(40, WIDTH - len(start)))] or [""]
    return [start + lines[0], *(" " * len(start) + line for line in lines[1:])]


def _sum(faults: int, notes: int) -> str:
    if not faults and not notes:
        return "Nothing to fix."
    counts = [
        f"{number} {word}{'s' if number > 1 else ''}" for number, word in ((faults, "fault"), (notes, "note")) if number
    ]
    return " and ".join(counts) + "; what to do stands behind each arrow."
