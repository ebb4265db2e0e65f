"""Kinetics-100: the subset of Kinetics-400 that files define: lists of clips (VideoSSL, Jing et al., 2021) or classes.

Which classes and clips are in it follows from no rule: copies of different age differ, and so do their results.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.annotations.kinetics import clip, read_kinetics
from ssl_video.data.annotations.official_files import NoRepeats, VideoFiles, read_lines
from ssl_video.utils.errors import InputError

NUM_CLASSES = 100
LINE = re.compile(r"(?:[^/]+/)?(?P<label>[^/]+)/(?P<id>[\w-]+)_(?P<start>\d{6})_(?P<end>\d{6})\.\w+\*(?P<number>\d+)")


def read_kinetics100(
    root: Path,
    *,
    classes: Path | None = None,
    train_list: Path | None = None,
    val_list: Path | None = None,
    annotations: Path | None = None,
) -> list[AnnotatedVideo]:
    """Reads the clips of a file of class names from the CSVs of Kinetics-400, or those of VideoSSL's lists.

    A line of a list reads `Train/<class>/<id>_<start>_<end>.mp4*<number of the class>`. Clips are looked for as
    `read_kinetics` does, in whatever folder.

    Args:
        root: folder of the videos.
        classes: class names, one a line.
        train_list: a list, in place of classes.
        val_list: a list, in place of classes.
        annotations: folder of the CSVs; the root or one of its folders by default.

    Returns:
        The clips, in the order of the files.

    Raises:
        InputError: no files or both kinds are given, one is missing, or a line does not fit.
    """
    lists = {split: file for split, file in (("train", train_list), ("val", val_list)) if file is not None}
    if (classes is None) == (not lists):
        raise InputError(
            "dataset=kinetics100 is defined by files: give dataset.source.classes=FILE (class names, one a line), or "
            "dataset.source.train_list=FILE and dataset.source.val_list=FILE (VideoSSL's lists), not both."
        )
    if classes is None:
        videos = _read_lists(root, lists)
    else:
        videos = read_kinetics(root, num_classes=400, annotations=annotations, classes=classes)
    named = len({video.labels["label"] for video in videos})
    if named > NUM_CLASSES:
        files = " and ".join(str(file) for file in lists.values()) or classes
        raise InputError(f"{files} name {named} classes; dataset=kinetics100 has {NUM_CLASSES} at most.")
    return videos


def _read_lists(root: Path, lists: Mapping[str, Path]) -> list[AnnotatedVideo]:
    files, names, videos = VideoFiles(root), NoRepeats(), []
    label_of_number: dict[str, str] = {}
    for split, file in lists.items():
        for line, text in read_lines(file):
            where = f"{file}, line {line}"
            found = LINE.fullmatch(text)
            if found is None:
                raise InputError(f"{where}: {text!r} must read Train/<class>/<id>_<start>_<end>.mp4*<number>.")
            label, number = found["label"], found["number"]
            if label_of_number.setdefault(number, label) != label:
                raise InputError(f"{where}: class {number} is {label!r} here, {label_of_number[number]!r} before.")
            start, end = float(found["start"]), float(found["end"])
            video = clip(files, found["id"], start, end, split=split, label=label, where=where)
            names.add(str(video.segment_id), where=where)
            videos.append(video)
    return videos
