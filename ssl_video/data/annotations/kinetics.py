"""Kinetics-400, -600 and -700 (Kay et al., 2017, and later): ten seconds of YouTube videos, one action each."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.annotations.official_files import (
    NoRepeats,
    VideoFiles,
    checked_name,
    find_file,
    read_csv,
    read_lines,
)
from ssl_video.utils.errors import InputError

Split = Literal["train", "val", "test"]
SPLIT_WORDS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


def read_kinetics(
    root: Path,
    *,
    num_classes: int,
    splits: Sequence[Split] = ("train", "val"),
    annotations: Path | None = None,
    classes: Path | None = None,
) -> list[AnnotatedVideo]:
    """Reads the official CSVs (label, youtube_id, time_start, time_end, split).

    Clips are looked for by name, in whatever folder: `<id>_<start>_<end>` with six digits each is the clip itself,
    `<id>` the whole video, of which the clip is a stretch. Clips of one YouTube video have the same video_id.

    Args:
        root: folder of the data set.
        num_classes: 400, 600 or 700; CSVs that name more are those of another edition.
        splits: which CSVs to read; that of test may have no labels.
        annotations: folder of the CSVs; the root or one of its folders by default.
        classes: a file of class names, one a line; other classes are left out.

    Returns:
        The clips of the splits, in the order of the files.

    Raises:
        InputError: a file is missing, or a line does not fit.
    """
    files, names, videos = VideoFiles(root), NoRepeats(), []
    for split in splits:
        file = find_file(root, _file_names(split, num_classes), folder=annotations)
        needed = ("youtube_id", "time_start", "time_end", *(() if split == "test" else ("label",)))
        for line, row in read_csv(file, needed=needed):
            where = f"{file}, line {line}"
            label = row.get("label", "").strip() or None
            if label is None and split != "test":
                raise InputError(f"{where}: label must not be empty in the {split} part.")
            start, end = _times(row["time_start"], row["time_end"], where=where)
            video = clip(files, row["youtube_id"], start, end, split=split, label=label, where=where)
            names.add(str(video.segment_id), where=where)
            videos.append(video)
    labels = {name for video in videos if isinstance(name := video.labels["label"], str)}
    if len(labels) > num_classes:
        raise InputError(
            f"the annotations of dataset.root={root} name {len(labels)} classes, Kinetics-{num_classes} has "
            f"{num_classes}; they are those of another edition: choose its dataset=."
        )
    if classes is None:
        return videos
    wanted = _wanted_classes(classes, labels)
    return [video for video in videos if video.labels["label"] in wanted]


def clip(
    files: VideoFiles, youtube_id: str, start: float, end: float, *, split: str, label: str | None, where: str
) -> AnnotatedVideo:
    """Finds a clip, cut out or as a stretch of the whole video; one that is not there gets the name of a cut one."""
    video_id = checked_name(youtube_id, where=where)
    name = f"{video_id}_{int(start):06d}_{int(end):06d}"
    cut = files.path(name, split=split)
    whole = files.path(video_id, split=split) if cut is None else None
    return AnnotatedVideo(
        cut or whole or f"{split}/{name}.mp4",
        {"label": label},
        split=split,
        start_seconds=None if whole is None else start,
        end_seconds=None if whole is None else end,
        video_id=video_id,
        segment_id=name,
    )


def _file_names(split: Split, edition: int) -> list[str]:
    prefixes = ("", "kinetics_", *(f"kinetics{sign}{edition}_" for sign in ("", "-", "_")))
    return [f"{prefix}{word}.csv" for word in SPLIT_WORDS[split] for prefix in prefixes]


def _times(start: str, end: str, *, where: str) -> tuple[float, float]:
    try:
        times = float(start), float(end)
    except ValueError:
        times = math.nan, math.nan
    if not 0 <= times[0] < times[1] < math.inf:
        raise InputError(f"{where}: time_start {start!r} and time_end {end!r} must be seconds, the end last.")
    return times


def _wanted_classes(file: Path, labels: set[str]) -> set[str]:
    for line, name in read_lines(file):
        if name not in labels:
            raise InputError(f"{file}, line {line}: {name!r} is no class of the annotations; write it as they do.")
    return {name for _, name in read_lines(file)}
