"""Charades-Ego (Sigurdsson et al., 2018): 7,860 videos of daily activities, acted for two cameras, 157 actions."""

import math
from dataclasses import replace
from pathlib import Path

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

VIEWS = {"Yes": "first_person", "No": "third_person"}  # by the column egocentric
FOLDER = "CharadesEgo_v1_480"  # of a video that is not there


def read_charades_ego(
    root: Path, *, whole_videos: bool = False, annotations: Path | None = None
) -> list[AnnotatedVideo]:
    """Reads `CharadesEgo_v1_train.csv`, `CharadesEgo_v1_test.csv` and `Charades_v1_classes.txt`.

    Each action of a video is a stretch of its own, with the label columns `action` and `view` (first_person or
    third_person); stretches of a video overlap. A video without actions is one stretch without an action. A video's
    group is its actor. Videos are looked for by name, in whatever folder.

    Args:
        root: folder of the data set.
        whole_videos: one row a video and no actions, as pre-training without labels may want it.
        annotations: folder of the three files; the root or one of its folders by default.

    Returns:
        The stretches of the train part, then those of the test part.

    Raises:
        InputError: a file is missing, or a line does not fit.
    """
    classes = _classes(find_file(root, ["Charades_v1_classes.txt"], folder=annotations))
    files, names, videos = VideoFiles(root), NoRepeats(), []
    for split in ("train", "test"):
        file = find_file(root, [f"CharadesEgo_v1_{split}.csv"], folder=annotations)
        for line, row in read_csv(file, needed=("id", "subject", "actions", "egocentric")):
            where = f"{file}, line {line}"
            name = checked_name(row["id"], where=where)
            names.add(name, where=where)
            view = VIEWS.get(row["egocentric"])
            if view is None:
                raise InputError(f"{where}: egocentric {row['egocentric']!r} must be Yes or No.")
            path = files.path(name, split=split) or f"{FOLDER}/{name}.mp4"
            whole = AnnotatedVideo(
                path, {"action": None, "view": view}, split=split, group=row["subject"] or None, video_id=name
            )
            actions = [] if whole_videos else _actions(row["actions"], classes, where=where)
            videos += [
                replace(
                    whole,
                    labels={"action": classes[number], "view": view},
                    start_seconds=start,
                    end_seconds=end,
                    segment_id=f"{name}@{start}-{end}/{number}",
                )
                for number, start, end in actions
            ] or [whole]
    return videos


def _classes(file: Path) -> dict[str, str]:
    classes = {}
    for line, text in read_lines(file):
        number, _, name = text.partition(" ")
        if not name or number in classes:
            raise InputError(f"{file}, line {line}: {text!r} must read c000 <action>, each number once.")
        classes[number] = name
    return classes


def _actions(cell: str, classes: dict[str, str], *, where: str) -> list[tuple[str, float, float]]:
    """The actions `c092 11.90 21.20;c147 0.00 12.60` of a video, each once."""
    actions = []
    for text in dict.fromkeys(part.strip() for part in cell.split(";") if part.strip()):
        number, *times = text.split()
        try:
            start, end = map(float, times)
        except ValueError:
            start = end = math.nan
        if number not in classes or not (0 <= start < math.inf and 0 <= end < math.inf):
            raise InputError(f"{where}: action {text!r} must read c000 <start> <end>, a known class and seconds.")
        actions.append((number, start, end))
    return actions
