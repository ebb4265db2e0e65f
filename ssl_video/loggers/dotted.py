"""Nested settings as one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def dotted(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``("optimizer.lr", 0.1)`` of ``{"optimizer": {"lr": 0.1}}``; an empty mapping gives nothing."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
