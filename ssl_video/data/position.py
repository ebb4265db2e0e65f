"""Where a run goes on in its data, and what must not have changed since it began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_video.utils.errors import InputError


def batches(*, processes: int, batch_size: int, batches_per_epoch: int) -> dict[str, int]:
    """How so many processes divide an epoch; what a position in batches is worth only together with."""
    return {
        "processes": processes,
        "batch_size": batch_size,
        "global_batch": batch_size * processes,
        "batches_per_epoch": batches_per_epoch,
    }


def same_video(consumed: int, *, began: Mapping[str, int] | None, now: Mapping[str, int]) -> int:
    """The batch of now that begins where so many of the run's earlier ones ended, or just before.

    Args:
        consumed: batches of a process when the run was saved.
        began: how the run divided its epochs then, see `batches`; None: as now.
        now: how it divides them.
    """
    if began is None or began == now:
        return consumed
    epoch, batch = divmod(consumed, began["batches_per_epoch"])
    batch = min(batch * began["global_batch"] // now["global_batch"], now["batches_per_epoch"])
    return epoch * now["batches_per_epoch"] + batch


def refuse_other_data(saved: Mapping[str, Any], now: Mapping[str, Any], *, name: str) -> None:
    """Refuses to go on with other data than the run began with.

    Args:
        saved: state of the data module that was saved.
        now: of its entries ``manifest_hash``, ``motion`` and ``clips_per_open`` what they are now.
        name: of the data set.

    Raises:
        InputError: the data set has changed, so that its rows are other videos now, or what is made of them.
    """
    if saved["manifest_hash"] != now["manifest_hash"]:
        raise InputError(
            f"The videos of {name} (files, labels or splits) have changed since the run began; it can go on "
            "only with what it began with. Put them back, or start a new run."
        )
    if saved.get("motion", "") != now["motion"]:
        raise InputError(
            f"The motion tables of {name} have changed since the run began, and the sampler would draw other "
            "frames; put them back as they were, or start a new run."
        )
    if saved.get("clips_per_open", 1) != now["clips_per_open"]:
        raise InputError(
            f"dataset.clips_per_open={now['clips_per_open']}, but the run began with "
            f"{saved.get('clips_per_open', 1)}; its batches would be others. Leave it, or start a new run."
        )
