"""Something-Something V2 (Goyal et al., 2017): 220,847 videos of 174 actions on everyday things, and its Mini form."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ssl_video.data.annotations.annotated_video import AnnotatedVideo, Label
from ssl_video.data.annotations.official_files import (
    NoRepeats,
    VideoFiles,
    checked_name,
    find_file,
    read_json,
    read_lines,
)
from ssl_video.utils.errors import InputError

Split = Literal["train", "val", "test"]
PARTS = {"train": "train", "val": "validation", "test": "test"}
FOLDER = "20bn-something-something-v2"  # of a video that is not there


def read_something_something(
    root: Path, *, splits: Sequence[Split] = ("train", "val"), annotations: Path | None = None
) -> list[AnnotatedVideo]:
    """Reads the official JSON files, `something-something-v2-train.json` and so on, or `train.json` and so on.

    A video's label is its template without brackets, as `labels.json` lists it. Videos `<id>.webm` are looked for by
    name, in whatever folder.

    Args:
        root: folder of the data set.
        splits: which parts to read; that of test has no labels.
        annotations: folder of the JSON files; the root or one of its folders by default.

    Returns:
        The videos of the splits, in the order of the files.

    Raises:
        InputError: a file is missing, or an entry does not fit.
    """
    files, names, videos = VideoFiles(root), NoRepeats(), []
    classes = read_json(find_file(root, _file_names("labels"), folder=annotations), dict)
    for split in splits:
        file = find_file(root, _file_names(PARTS[split]), folder=annotations)
        for number, entry in enumerate(read_json(file, list), start=1):
            where = f"{file}, entry {number}"
            if not isinstance(entry, dict) or "id" not in entry:
                raise InputError(f"{where}: {entry!r} must be an object with an id.")
            label = None if split == "test" else _label(entry, classes, where=where)
            videos.append(_video(files, entry["id"], label, split=split, where=where))
            names.add(str(entry["id"]), where=where)
    return videos


def read_something_something_mini(
    root: Path,
    *,
    train_list: Path | None,
    val_list: Path | None,
    classes: Path | None = None,
    annotations: Path | None = None,
) -> list[AnnotatedVideo]:
    """Reads lists of videos, as the Mini form is distributed: a line is `<id>` or `<id> <frames> <class number>`.

    Args:
        root: folder of the data set.
        train_list: the training videos.
        val_list: the validation videos.
        classes: the names of the numbered classes, one a line; None takes the labels from the official JSON files.
        annotations: see `read_something_something`.

    Returns:
        The videos of the training list, then those of the other, in the order of the lists.

    Raises:
        InputError: a list is missing, or a line does not fit.
    """
    if train_list is None or val_list is None:
        raise InputError(
            "dataset=something_something_v2_mini is defined by lists: give dataset.source.train_list=FILE and "
            "dataset.source.val_list=FILE, and dataset.source.classes=FILE where their lines hold class numbers."
        )
    class_names = None if classes is None else [name for _, name in read_lines(classes)]
    official = [] if class_names is not None else read_something_something(root, annotations=annotations)
    label_of = {PurePosixPath(video.path).stem: video.labels["label"] for video in official}
    files, names, videos = VideoFiles(root), NoRepeats(), []
    for split, file in (("train", train_list), ("val", val_list)):
        for line, text in read_lines(file):
            where, cells = f"{file}, line {line}", text.split()
            if class_names is None and cells[0] not in label_of:
                raise InputError(f"{where}: {cells[0]!r} is in neither train nor validation of the annotations.")
            label = label_of[cells[0]] if class_names is None else _numbered_label(cells, class_names, where=where)
            videos.append(_video(files, cells[0], label, split=split, where=where))
            names.add(cells[0], where=where)
    return videos


def _file_names(part: str) -> list[str]:
    return [f"something-something-v2-{part}.json", f"{part}.json"]


def _video(files: VideoFiles, name: Any, label: Label, *, split: str, where: str) -> AnnotatedVideo:
    name = checked_name(name, where=where)
    return AnnotatedVideo(files.path(name, split=split) or f"{FOLDER}/{name}.webm", {"label": label}, split=split)


def _label(entry: dict[str, Any], classes: dict[str, Any], *, where: str) -> str:
    template = str(entry.get("template", ""))
    label = template.replace("[", "").replace("]", "")
    if label not in classes:
        raise InputError(f"{where}: template {template!r} is, without brackets, no class of labels.json.")
    return label


def _numbered_label(cells: list[str], class_names: list[str], *, where: str) -> str:
    if len(cells) != 3 or not cells[2].isdigit() or int(cells[2]) >= len(class_names):
        raise InputError(
            f"{where}: {' '.join(cells)!r} must read <id> <frames> <class number>, the number below "
            f"{len(class_names)}, the lines of dataset.source.classes."
        )
    return class_names[int(cells[2])]
