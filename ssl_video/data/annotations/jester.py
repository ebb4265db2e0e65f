"""Jester (Materzynska et al., 2019): 148,092 videos of 27 hand gestures, as folders of numbered images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.annotations.official_files import NoRepeats, checked_name, find_file, read_lines
from ssl_video.utils.errors import InputError

Split = Literal["train", "val", "test"]
PARTS = {"train": "train", "val": "validation", "test": "test"}
FOLDER = "20bn-jester-v1"
FRAMES_PER_SECOND = 12.0  # at which the images were taken out of the videos


def read_jester(
    root: Path, *, splits: Sequence[Split] = ("train", "val"), annotations: Path | None = None
) -> list[AnnotatedVideo]:
    """Reads the official files `jester-v1-labels.csv`, `jester-v1-train.csv` and so on; a line is `<id>;<class>`.

    Images lie in `20bn-jester-v1/<id>/`, or in `<id>/`.

    Args:
        root: folder of the data set.
        splits: which parts to read; that of test has no labels.
        annotations: folder of the CSVs; the root or one of its folders by default.

    Returns:
        The videos of the splits, in the order of the files.

    Raises:
        InputError: a file is missing, or a line does not fit.
    """
    labels_file = find_file(root, ["jester-v1-labels.csv"], folder=annotations)
    classes = {name for _, name in read_lines(labels_file)}
    prefix = f"{FOLDER}/" if (root / FOLDER).is_dir() else ""
    names, videos = NoRepeats(), []
    for split in splits:
        file = find_file(root, [f"jester-v1-{PARTS[split]}.csv"], folder=annotations)
        for line, text in read_lines(file):
            where = f"{file}, line {line}"
            name, _, label = (part.strip() for part in text.partition(";"))
            if split != "test" and label not in classes:
                raise InputError(f"{where}: {text!r} must read <id>;<class>, a class of {labels_file.name}.")
            path = f"{prefix}{checked_name(name, where=where)}"
            names.add(path, where=where)
            videos.append(AnnotatedVideo(path, {"label": None if split == "test" else label}, split=split))
    return videos
