"""What is refused or told before a run begins: over all rows of a manifest, of which there may be a million."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.manifest import Manifest
from ssl_video.data.motion import MotionTables
from ssl_video.utils.errors import InputError

FILES_SHOWN = 10


def refuse_unreadable(manifest: Manifest, *, name: str, max_share: float) -> None:
    """Refuses a data set of which more than ``max_share`` cannot be read.

    Raises:
        InputError: with the first of the files and their faults.
    """
    bad = np.flatnonzero(~manifest.is_usable())
    if len(bad) <= max_share * len(manifest):
        return
    first = manifest.table.select(["path", "status", "reason"]).take(bad[:FILES_SHOWN]).to_pylist()
    shown = "\n".join(f"  {row['path']}: {row['status']} ({row['reason']})" for row in first)
    more = f"\n  … and {len(bad) - FILES_SHOWN} more" if len(bad) > FILES_SHOWN else ""
    raise InputError(
        f"{len(bad)} of {len(manifest)} videos of {name} are missing or cannot be read, above "
        f"dataset.max_unreadable_share={max_share}. Mend or remove them, or raise that share:\n{shown}{more}"
    )


def count_without_motion(manifest: Manifest, rows: NDArray[np.int64], tables: MotionTables) -> int:
    """How many of some rows have no motion table."""
    if not len(tables):
        return len(rows)
    return sum(manifest.segment(row) not in tables for row in rows.tolist())
