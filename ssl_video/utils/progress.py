"""How far a loop is: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0
Item = TypeVar("Item")


def with_progress(
    items: Iterable[Item], *, total: int, title: str, unit: str, seconds_between_lines: float = SECONDS_BETWEEN_LINES
) -> Iterator[Item]:
    """Yields the items and tells, on standard error, how many of ``total`` have come."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=title, unit=unit, delay=1.0)
        return
    told = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - told >= seconds_between_lines:
            told = time.monotonic()
            print(f"{title}: {number} of {total} {unit}s", file=sys.stderr, flush=True)
