"""Pictures that a run shows of itself, and how they become files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Still:
    """One picture.

    Attributes:
        image: uint8 ``[H, W, 3]``.
        caption: what it shows, in words.
    """

    image: Pixels
    caption: str


@dataclass(frozen=True)
class ClipTable:
    """A table whose cells are texts, numbers and clips.

    Attributes:
        columns: their names.
        rows: one value per column; clips are uint8 ``[T, H, W, 3]``.
        still: the same as one picture, for whoever can show no table.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Pixels | str | int, ...]]
    still: Still


Picture = Still | ClipTable


@runtime_checkable
class ShowsPictures(Protocol):
    """Takes pictures of a run."""

    def show(self, name: str, picture: Picture, *, step: int) -> None:
        """Keeps a picture.

        Args:
            name: such as ``pictures/neighbours``.
            picture: what to show.
            step: number of the optimizer step, from 0, after which it was made.
        """


def clips_of(table: ClipTable) -> list[Pixels]:
    """The clips in a table's cells, row by row."""
    return [value for row in table.rows for value in row if isinstance(value, np.ndarray)]


def tiled(clips: Sequence[Pixels], *, columns: int = 4, side: int = 96) -> Pixels:
    """Clips as tiles of one clip ``[T, H, W, 3]``; the shorter ones stand still at their end.

    Args:
        clips: each uint8 ``[t, h, w, 3]``.
        columns: tiles in a row.
        side: height and width of a tile.
    """
    length = max(len(clip) for clip in clips)
    rows = -(-len(clips) // columns)
    board = np.full((length, rows * (side + 4), columns * (side + 4), 3), 255, dtype=np.uint8)
    for place, clip in enumerate(clips):
        top, left = (place // columns) * (side + 4), (place % columns) * (side + 4)
        for number in range(length):
            frame = Image.fromarray(np.ascontiguousarray(clip[min(number, len(clip) - 1)]))
            board[number, top : top + side, left : left + side] = np.asarray(frame.resize((side, side)).convert("RGB"))
    return board


def png(image: Pixels) -> bytes:
    """A PNG of uint8 ``[H, W, 3]``."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def jpeg(image: Pixels) -> bytes:
    """A JPEG of uint8 ``[H, W, 3]``: a tenth of a PNG where videos are on it."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def gif(frames: Pixels | Sequence[Pixels], *, milliseconds: int = 150) -> bytes:
    """A looping animation of uint8 ``[T, H, W, 3]``: the one kind that W&B and TensorBoard play without a click.

    Args:
        frames: the clip; one frame gives a still.
        milliseconds: that each frame is shown.
    """
    images = [Image.fromarray(np.ascontiguousarray(frame)).convert("RGB") for frame in frames]
    # One palette for all frames, or the still parts of the picture flicker.
    palette = Image.fromarray(np.concatenate([np.asarray(image) for image in images])).quantize(256)
    indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    buffer = io.BytesIO()
    indexed[0].save(
        buffer, format="GIF", save_all=True, append_images=indexed[1:], duration=milliseconds, loop=0, optimize=False
    )
    return buffer.getvalue()
