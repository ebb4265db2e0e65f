"""Diving48 (Li et al., 2018) with its cleaned labels, V2: 17,000 dives of 48 classes that no single frame tells."""

from pathlib import Path
from typing import Any

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.annotations.official_files import NoRepeats, VideoFiles, checked_name, find_file, read_json
from ssl_video.utils.errors import InputError

ATTRIBUTES = ("takeoff", "somersaults", "twists", "position")
FOLDER = "rgb"  # of a video that is not there


def read_diving48(root: Path, *, annotations: Path | None = None) -> list[AnnotatedVideo]:
    """Reads `Diving48_V2_train.json`, `Diving48_V2_test.json` and `Diving48_vocab.json`.

    Label columns are `label`, the four attributes of a dive together, and each of them: `takeoff`, `somersaults`,
    `twists`, `position`. A video's group is the competition that it was cut from. Videos are looked for by name, in
    whatever folder; each holds one dive, so all of it is taken.

    Args:
        root: folder of the data set.
        annotations: folder of the JSON files; the root or one of its folders by default.

    Returns:
        The videos of the train part, then those of the test part.

    Raises:
        InputError: a file is missing, or an entry does not fit.
    """
    classes = _classes(find_file(root, ["Diving48_vocab.json"], folder=annotations))
    files, names, videos = VideoFiles(root), NoRepeats(), []
    for split in ("train", "test"):
        file = find_file(root, [f"Diving48_V2_{split}.json"], folder=annotations)
        for number, entry in enumerate(read_json(file, list), start=1):
            where = f"{file}, entry {number}"
            if not isinstance(entry, dict) or not {"vid_name", "label"} <= set(entry):
                raise InputError(f"{where}: {entry!r} must be an object with vid_name and label.")
            name = checked_name(entry["vid_name"], where=where)
            names.add(name, where=where)
            path = files.path(name, split=split) or f"{FOLDER}/{name}.mp4"
            labels = _labels(entry, classes, where=where)
            videos.append(AnnotatedVideo(path, labels, split=split, group=name.rpartition("_")[0] or name))
    return videos


def _classes(file: Path) -> list[list[str]]:
    classes = read_json(file, list)
    for number, words in enumerate(classes, start=1):
        if not isinstance(words, list) or len(words) != len(ATTRIBUTES):
            raise InputError(f"{file}, entry {number}: {words!r} must be a list of {', '.join(ATTRIBUTES)}.")
    return [[str(word) for word in words] for words in classes]


def _labels(entry: dict[str, Any], classes: list[list[str]], *, where: str) -> dict[str, str | None]:
    number = entry["label"]
    if not isinstance(number, int) or not 0 <= number < len(classes):
        raise InputError(f"{where}: label {number!r} must be in 0..{len(classes) - 1}, the classes of the vocabulary.")
    if entry.get("start_frame", 0) != 0:
        raise InputError(f"{where}: start_frame {entry['start_frame']!r} must be 0; a file holds one dive, all of it.")
    return {"label": "_".join(classes[number]), **dict(zip(ATTRIBUTES, classes[number], strict=True))}
