"""From a file and what is wanted of it to pixels: the one door between the data set and the readers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ssl_video.data.readers.base import Cut, FramePart, ReaderFactory, check_box, resize_frames
from ssl_video.data.readers.stream import StreamTable
from ssl_video.utils.errors import InputError, UnreadableVideo

Frames = NDArray[np.uint8]
MOST_UNSCALED_BYTES = 2**26  # of one read: 16 frames of 1080p, or all of 340x256 that anybody asks for


class Decoder(Protocol):
    """Opens a file, reads clips in one ordered pass, and closes it."""

    def decode(self, path: Path, cuts: Sequence[Cut], *, table: StreamTable | None = None) -> list[Frames]:
        """Reads what is wanted of one file.

        Args:
            path: the video.
            cuts: the clips.
            table: the file's table of frames where it is known, so that its packets need not be read for it.

        Returns:
            For each cut uint8 [T, h, w, 3], RGB. It is to be read, and before the next call, which may overwrite it.

        Raises:
            UnreadableVideo: not all of it came, for whatever reason; the message is the reason.
        """
        ...

    def take_restarts(self) -> Mapping[str, int]:
        """How many decoding processes were replaced since this was last asked, by the cause."""
        ...

    def close(self) -> None:
        """Frees what the decoder holds; it may be used again."""
        ...


class DirectDecoder:
    """Decodes in the calling process: nothing keeps a file from hanging or ending it.

    Args:
        open_reader: opens a file for reading frames.
    """

    def __init__(self, open_reader: ReaderFactory) -> None:
        self.open_reader = open_reader

    def decode(self, path: Path, cuts: Sequence[Cut], *, table: StreamTable | None = None) -> list[Frames]:
        """See Decoder.decode."""
        asked = unscaled(cuts, table)
        reader = self.open_reader(path, table=table)
        try:
            clips = reader.read_cuts(asked)
        except InputError:  # a library that is missing, say, and no fault of the video
            raise
        except (IndexError, ValueError) as fault:
            # Frame numbers and sizes come from the manifest: the file is not, or no longer, what was indexed.
            raise UnreadableVideo(str(fault)) from fault
        finally:
            reader.close()
        check_clips(clips, asked)
        return scaled(clips, asked, cuts)

    def take_restarts(self) -> Mapping[str, int]:
        """None: there is no other process."""
        return {}

    def close(self) -> None:
        """Nothing is held."""


def unscaled(cuts: Sequence[Cut], table: StreamTable | None) -> Sequence[Cut]:
    """What a reader is asked for so that whole clips can be scaled at once, which takes half the time of single frames.

    And so that a process which only reads does without the library that scales, PyTorch with its 300 MB. Parts that are
    large together stay as they are, and the reader scales each frame as it comes.

    Args:
        cuts: what is wanted.
        table: the file's table of frames where it is known; it tells how large whole frames are.
    """
    whole = (0, 0) if table is None else (table.height, table.width)
    areas = [math.prod(whole if cut.part.box is None else cut.part.box[2:]) for cut in cuts]
    if 3 * sum(len(cut.indices) * area for cut, area in zip(cuts, areas, strict=True)) > MOST_UNSCALED_BYTES:
        return cuts
    return [replace(cut, part=FramePart(cut.part.box)) for cut in cuts]


def scaled(clips: Sequence[Frames], asked: Sequence[Cut], cuts: Sequence[Cut]) -> list[Frames]:
    """Makes what is wanted of what was asked for instead."""
    return list(clips) if asked is cuts else [_scaled(clip, cut.part) for clip, cut in zip(clips, cuts, strict=True)]


def _scaled(clip: Frames, part: FramePart) -> Frames:
    if part.size is not None:
        clip = resize_frames(clip, part.size)
    if part.window is None:
        return clip
    check_box(part.window, *clip.shape[1:3])
    top, left, height, width = part.window
    return clip[:, top : top + height, left : left + width]


def check_clips(clips: Sequence[Frames], cuts: Sequence[Cut]) -> None:
    """Refuses clips that are not what was asked for.

    Raises:
        UnreadableVideo: clips are missing, or a clip has other frames than were asked for.
    """
    if len(clips) != len(cuts):
        raise UnreadableVideo(f"{len(clips)} of {len(cuts)} clips came")
    for clip, cut in zip(clips, cuts, strict=True):
        if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3:
            raise UnreadableVideo(f"a clip came as {clip.dtype} {list(clip.shape)} instead of uint8 [T, H, W, 3]")
        if len(clip) != len(cut.indices):
            raise UnreadableVideo(f"{len(clip)} of {len(cut.indices)} frames came")
        size = cut.part.output_size(*clip.shape[1:3])
        if clip.shape[1:3] != size:
            raise UnreadableVideo(f"frames came as {list(clip.shape[1:3])} pixels instead of {list(size)}")
