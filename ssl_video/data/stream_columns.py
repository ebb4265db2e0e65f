"""A file's table of frames as columns of a manifest, so that reading some frames needs no look at all packets.

Times are kept as their first and their step, as those of nearly all files are regular: whole steps of the time base,
or steps rounded to it (Matroska and WebM count milliseconds). Where they are not, the columns say so by being null,
and a reader reads the packets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.readers.stream import StreamTable

STREAM_COLUMNS = ("stream_index", "is_plain", "first_pts", "pts_step", "keyframes")
TABLE_SOURCES = (*STREAM_COLUMNS[:-1], "codec", "num_frames", "fps", "width", "height", "rotation")


def stream_columns(table: StreamTable, described: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that give a file's table back.

    Args:
        table: the table.
        described: the manifest's other columns of the file.

    Returns:
        STREAM_COLUMNS by name; only ``keyframes`` where the others would not give back this very table.
    """
    keyframes = {"keyframes": table.keyframes.tolist()}
    first_pts, pts_step = (int(table.times[0]), _step(table.times)) if table.is_timed else (0, 0.0)
    if pts_step is None:
        return keyframes
    columns = {
        "stream_index": table.stream_index,
        "is_plain": table.is_plain,
        "first_pts": first_pts,
        "pts_step": pts_step,
        **keyframes,
    }
    again = restored_table({**described, **columns}, keyframes=table.keyframes)
    return columns if again is not None and _equal(again, table) else keyframes


def restored_table(columns: Mapping[str, Any], *, keyframes: NDArray[np.integer[Any]] | None) -> StreamTable | None:
    """The table of a file out of its columns in the manifest, None where one is null.

    Args:
        columns: TABLE_SOURCES, of the whole file.
        keyframes: ``[K]`` frames of the file that can be sought.
    """
    if keyframes is None or None in [columns.get(name) for name in TABLE_SOURCES]:
        return None
    height, width = columns["height"], columns["width"]
    is_turned = columns["rotation"] % 180 == 90
    num_frames, step = columns["num_frames"], columns["pts_step"]
    return StreamTable(
        stream_index=columns["stream_index"],
        codec=columns["codec"],
        width=height if is_turned else width,
        height=width if is_turned else height,
        fps=columns["fps"],
        times=_times(columns["first_pts"], step, num_frames) if step else np.empty(0, dtype=np.int64),
        num_frames=num_frames,
        keyframes=keyframes.astype(np.int64),
        is_plain=columns["is_plain"],
    )


def _times(first: int, step: float, number: int) -> NDArray[np.int64]:
    """``[number]`` times that are whole, or rounded from a regular grid (halves up, which FFmpeg's muxers do)."""
    places = np.arange(number)
    if step.is_integer():
        return places * int(step) + first
    passed: NDArray[np.int64] = np.floor(places * step + 0.5).astype(np.int64)
    return passed + first


def _step(times: NDArray[np.int64]) -> float | None:
    """A step from which all times follow, None where there is none."""
    if len(times) == 1:
        return 1.0
    passed, places = times[1:] - times[0], np.arange(1, len(times))
    step = float(passed[0])
    if not np.array_equal(passed, places * passed[0]):
        # Each time leaves the step an interval: the one from which it is rounded to this time.
        step = float((((passed - 0.5) / places).max() + ((passed + 0.5) / places).min()) / 2)
    return step if step > 0 and np.array_equal(_times(int(times[0]), step, len(times)), times) else None


def _equal(one: StreamTable, other: StreamTable) -> bool:
    names = ("stream_index", "codec", "width", "height", "fps", "num_frames", "is_plain")
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and np.array_equal(one.times, other.times)
        and np.array_equal(one.keyframes, other.keyframes)
    )
