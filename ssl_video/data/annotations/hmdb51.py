"""HMDB51 (Kuehne et al., 2011): 6,766 clips of 51 actions, three official splits into train and test."""

import re
from pathlib import Path

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.utils.errors import InputError

NUM_SPLITS = 3
SPLIT_OF_TAG = {"0": None, "1": "train", "2": "test"}  # 0: in neither part of this split
# What clip names end in: visible body parts, camera motion, people, viewpoint, quality, number.
PROPERTIES = re.compile(r"_[a-z]_(?:cm|nm)_np\d_[a-z]{2}_[a-z]{3}_\d+$")


def read_hmdb51(root: Path, *, split: int = 1) -> list[AnnotatedVideo]:
    """Reads an official split as it is distributed.

    Expects `<class>_test_split<N>.txt` in the root or in one of its folders (`testTrainMulti_7030_splits`), and the
    videos in `<class>/`, there or in one folder (`hmdb51_org`). Clips that a split leaves out are left out here. A
    video's group is its name without the properties at the end: clips cut from the same film.

    Args:
        root: folder of the data set.
        split: 1, 2 or 3.

    Returns:
        The videos of all classes, in the order of the files.

    Raises:
        InputError: the split does not exist, its files are missing, or a line does not fit.
    """
    if split not in range(1, NUM_SPLITS + 1):
        raise InputError(f"split={split} of HMDB51 must be 1, 2 or 3.")
    files = _split_files(root, split)
    videos = []
    for file in files:
        label = file.name.removesuffix(f"_test_split{split}.txt")
        folder = _video_folder(root, label)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            name, _, tag = line.strip().rpartition(" ")
            if not name or tag not in SPLIT_OF_TAG:
                raise InputError(f"{file}, line {number}: {line!r} must read <video>.avi and 0, 1 or 2.")
            part = SPLIT_OF_TAG[tag]
            if part is not None:
                path = f"{folder}{label}/{name.strip()}"
                group = PROPERTIES.sub("", Path(name.strip()).stem)
                videos.append(AnnotatedVideo(path, {"label": label}, split=part, group=group))
    return videos


def _split_files(root: Path, split: int) -> list[Path]:
    pattern = f"*_test_split{split}.txt"
    for files in (sorted(root.glob(pattern)), sorted(root.glob(f"*/{pattern}"))):
        if files:
            return files
    raise InputError(
        f"dataset.root={root} must hold <class>_test_split{split}.txt, itself or in a folder; unpack the official "
        "test_train_splits.rar there."
    )


def _video_folder(root: Path, label: str) -> str:
    """The folder that holds the class folder, as a prefix of paths; the root where there is none, so it is missing."""
    if (root / label).is_dir():
        return ""
    inner = sorted(path.parent.name for path in root.glob(f"*/{label}") if path.is_dir())
    return f"{inner[0]}/" if inner else ""
