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


def refuse_large_batch(
    num_videos: int, *, batch_size: int, num_processes: int, name: str, too_short: int, min_frames: int
) -> None:
    """Refuses a batch of all processes together that is larger than the training part.

    Args:
        num_videos: that can be trained on.
        batch_size: of a process.
        num_processes: of the run.
        name: of the data set.
        too_short: videos that are left out for it.
        min_frames: that the sampler needs.

    Raises:
        InputError: names both and the way out.
    """
    if num_videos >= batch_size * num_processes:
        return
    left_out = f" ({too_short} are shorter than the {min_frames} frames that sampler needs)" if too_short else ""
    fitting = num_videos // num_processes
    way_out = f"Use batch_size={fitting} or less." if fitting else "Give longer videos, or a sampler that spans less."
    raise InputError(
        f"batch_size={batch_size} on {num_processes} device(s) is larger than the {num_videos} usable training videos "
        f"of {name}{left_out}. {way_out}"
    )


def count_without_motion(manifest: Manifest, rows: NDArray[np.int64], tables: MotionTables) -> int:
    """How many of some rows have no motion table."""
    if not len(tables):
        return len(rows)
    return sum(manifest.segment(row) not in tables for row in rows.tolist())


def tell_missing_motion(missing: int, *, of: int, name: str, words: str, refuse: bool) -> str | None:
    """What is to be said of videos without a motion table where the sampler chooses by motion, None where all have one.

    Args:
        missing: videos without one.
        of: all of them.
        name: of the data set.
        words: of the command line that name it.
        refuse: rather than draw without regard to motion there.

    Raises:
        InputError: some have none, and that is to be refused.
    """
    if not missing:
        return None
    told = (
        f"{missing} of {of} training videos of {name} have no motion table. To make them: "
        f"ssl-video motion {words} (and what else of dataset= and cache_dir= this command has)."
    )
    if refuse:
        raise InputError(f"{told} Or set sampler.missing_motion=uniform, which draws uniformly there.")
    return f"{told} Until then frames and patches are drawn without regard to motion there."
