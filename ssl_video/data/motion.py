"""How much moves, where and when: per-video tables that samplers choose frames and patches by.

A table is written once (``ssl-video motion``) into a folder beside the manifest, one file per segment, so that a
sampler stays arithmetic and no training step computes optical flow.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.manifest import Segment
from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_atomically

FORMAT_VERSION = 1
SETTINGS_FILE = "settings.json"

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
FlowMethod = Literal["farneback", "frame_difference", "raft"]


@dataclass(frozen=True, eq=False)
class Motion:
    """The motion of one segment.

    Attributes:
        magnitude: ``[L]`` float32, mean length of the optical flow from frame t to t + 1, in pixels of the source per
            frame (with ``frame_difference``: mean difference in grey levels); the last frame repeats the one before.
        grid: ``[L, gh, gw]`` float16, the same by cells of the frame.
        thumbnails: ``[L, 64, 64]`` uint8, the frames in grey.
    """

    magnitude: Floats
    grid: NDArray[np.float16]
    thumbnails: Bytes

    def __post_init__(self) -> None:
        length = len(self.magnitude)
        if self.magnitude.ndim != 1 or self.grid.ndim != 3 or self.thumbnails.ndim != 3:
            raise ValueError(
                f"magnitude {self.magnitude.shape}, grid {self.grid.shape} and thumbnails {self.thumbnails.shape} must "
                "be [L], [L, gh, gw] and [L, 64, 64]."
            )
        if len(self.grid) != length or len(self.thumbnails) != length:
            raise ValueError(
                f"magnitude, grid and thumbnails are of {length}, {len(self.grid)} and {len(self.thumbnails)} frames; "
                "they must be of the same ones."
            )


@dataclass(frozen=True)
class MotionSettings:
    """How tables are computed; those of one folder have the same.

    Attributes:
        flow: ``farneback`` (Farneback, SCIA 2003, by OpenCV), ``raft`` (Teed & Deng, ECCV 2020, by torchvision) or
            ``frame_difference``, the cheap choice.
        downscale: share of the source's size at which flow is computed.
        min_side: pixels that the longer side keeps, however small the share; smaller sources are not scaled.
        grid_cells: cells of the grid along the shorter side.
        weights: sha256 of RAFT's weights.
    """

    flow: FlowMethod = "farneback"
    downscale: float = 0.25
    min_side: int = 64
    grid_cells: int = 16
    weights: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.downscale <= 1:
            raise InputError(f"downscale={self.downscale} must be above 0 and at most 1; it is a share of the size.")

    def flow_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which the flow of such frames is computed; 320 x 240 gives 80 x 60."""
        scale = min(1.0, max(self.downscale, self.min_side / max(height, width)))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the grid over such frames: cells are about square, and hold a pixel or more."""
        cell = max(1.0, min(height, width) / self.grid_cells)
        return max(1, round(height / cell)), max(1, round(width / cell))

    def described(self) -> dict[str, Any]:
        """What stands in the folder's JSON."""
        unit = "grey levels" if self.flow == "frame_difference" else "source pixels per frame"
        return {"version": FORMAT_VERSION, **asdict(self), "unit": unit}


def motion_folder(manifest: Path) -> Path:
    """The folder of a manifest's tables: ``data.parquet`` has ``data.motion`` beside it."""
    return manifest.with_suffix(".motion")


def table_name(segment: Segment) -> str:
    """File name of a segment's table: readable, safe on any file system, and another one for another stretch."""
    identity = f"{segment.segment_id}\n{segment.path}\n{segment.first_frame}\n{segment.num_frames}"
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(segment.path).stem)[:40].lstrip(".")
    return f"{stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"


_NAME = re.compile(r".*-[0-9a-f]{16}\.npz")


def _number(name: str) -> int:
    """What tells a table's name from all others, as a number."""
    return int(name[-20:-4], 16)


def write_motion(folder: Path, segment: Segment, motion: Motion, *, file_bytes: int = 0) -> None:
    """Writes a table; another process sees none or the whole one.

    Args:
        folder: see `motion_folder`.
        segment: what was measured.
        motion: its table.
        file_bytes: size of the video file, by which a replaced one is found out.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(
                file,
                magnitude=motion.magnitude,
                grid=motion.grid,
                thumbnails=motion.thumbnails,
                file_bytes=np.int64(file_bytes),
            )

    write_atomically(folder / table_name(segment), write)


def read_motion(folder: Path, segment: Segment) -> Motion | None:
    """A segment's table, or None where there is none.

    Raises:
        InputError: a damaged table.
    """
    path = folder / table_name(segment)
    try:
        with path.open("rb") as file, np.load(file) as table:
            return Motion(table["magnitude"], table["grid"], table["thumbnails"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as fault:
        raise InputError(
            f"motion table {path} cannot be read ({fault}); delete it and run `ssl-video motion` again."
        ) from fault


def table_file_bytes(folder: Path, segment: Segment) -> int | None:
    """Size of the video file that a segment's table was made from; None where there is no whole table."""
    try:
        with (folder / table_name(segment)).open("rb") as file, np.load(file) as table:
            return int(table["file_bytes"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


class MotionTables:
    """The tables of a data set, as they were when this object was made.

    A table that is written while a run is on is not seen by it: samples are a function of the seed, not of the clock.

    Args:
        folder: see `motion_folder`; None, or a folder that is not there, has no tables.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        names = sorted(path.name for path in folder.glob("*.npz")) if folder is not None and folder.is_dir() else []
        # Numbers, not names: a set of a million texts would be copied into every worker that looks into it.
        self._numbers = np.unique(np.array([_number(name) for name in names if _NAME.fullmatch(name)], dtype=np.uint64))
        self._fingerprint = ""
        if folder is not None and names:
            settings = json.dumps(read_settings(folder), sort_keys=True)
            self._fingerprint = hashlib.sha256("\n".join([settings, *names]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, segment: Segment) -> bool:
        if not len(self):
            return False
        number = np.uint64(_number(table_name(segment)))
        place = int(np.searchsorted(self._numbers, number))
        return place < len(self) and bool(self._numbers[place] == number)

    def read(self, segment: Segment) -> Motion | None:
        """A segment's table, or None where there was none.

        Raises:
            InputError: it is damaged, or gone since.
        """
        if self.folder is None or segment not in self:
            return None
        motion = read_motion(self.folder, segment)
        if motion is None:
            raise InputError(f"{self.folder / table_name(segment)} was there when the run began and is gone.")
        return motion

    def fingerprint(self) -> str:
        """Changes with the tables there are and with how they were made; empty where there are none."""
        return self._fingerprint


def read_settings(folder: Path) -> dict[str, Any] | None:
    """What a folder's tables were made with, or None where it has none.

    Raises:
        InputError: the file is not what `write_settings` wrote.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS_FILE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise InputError(
            f"{folder / SETTINGS_FILE} cannot be read ({fault}); delete {folder} and begin anew."
        ) from None
    return settings


def use_settings(folder: Path, settings: MotionSettings, *, overwrite: bool = False) -> None:
    """Prepares a folder for tables made in one way.

    Args:
        folder: made if it is not there.
        settings: how the tables will be made.
        overwrite: delete the tables that are there.

    Raises:
        InputError: there are tables that were made in another way.
    """
    there = read_settings(folder)
    wanted = settings.described()
    if there not in (None, wanted) and not overwrite:
        assert there is not None
        differing = {key: (there.get(key), value) for key, value in wanted.items() if there.get(key) != value}
        told = ", ".join(f"{key}: {old} there, {new} asked" for key, (old, new) in differing.items())
        raise InputError(
            f"{folder} holds motion tables made in another way ({told or 'of another version'}); tables of one data "
            "set must be of one kind. Ask for the same again, or replace them with --overwrite."
        )
    if overwrite and folder.is_dir():
        for table in folder.glob("*.npz"):
            table.unlink()
    if there != wanted:

        def write(temporary: Path) -> None:
            temporary.write_text(json.dumps(wanted, indent=2) + "\n")

        write_atomically(folder / SETTINGS_FILE, write)
