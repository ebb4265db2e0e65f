"""UCF101 (Soomro et al., 2012): 13,320 clips of 101 actions, three official splits into train and test."""

import re
from pathlib import Path

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.utils.errors import InputError

SPLIT_FOLDERS = (".", "ucfTrainTestlist")
VIDEO_FOLDERS = ("UCF-101", ".")
NUM_SPLITS = 3


def read_ucf101(root: Path, *, split: int = 1) -> list[AnnotatedVideo]:
    """Reads an official split as it is distributed.

    Expects `classInd.txt`, `trainlist0N.txt` and `testlist0N.txt` in the root or in `ucfTrainTestlist`, and the videos
    in `UCF-101/<Class>/` or `<Class>/`. A video's group is that of its file name (`g08` of one class): clips of a
    group are cut from one recording.

    Args:
        root: folder of the data set.
        split: 1, 2 or 3.

    Returns:
        The videos of the train list, then those of the test list.

    Raises:
        InputError: the split does not exist, a file is missing, or a line does not fit.
    """
    if split not in range(1, NUM_SPLITS + 1):
        raise InputError(f"split={split} of UCF101 must be 1, 2 or 3.")
    folder = _folder(root, SPLIT_FOLDERS, holding="classInd.txt")
    classes = {line.split()[1] for line in _lines(folder / "classInd.txt")}
    prefix = next((f"{name}/" for name in VIDEO_FOLDERS if name != "." and (root / name).is_dir()), "")
    videos = []
    for part in ("train", "test"):
        file = folder / f"{part}list{split:02d}.txt"
        for number, line in enumerate(_lines(file), start=1):
            label, _, name = line.split()[0].partition("/")
            group = re.fullmatch(r"v_.+_(g\d+)_c\d+\.avi", name)
            if label not in classes or group is None:
                raise InputError(f"{file}, line {number}: {line!r} must read <Class>/v_<Class>_gXX_cYY.avi.")
            path = f"{prefix}{label}/{name}"
            videos.append(AnnotatedVideo(path, {"label": label}, split=part, group=f"{label}_{group[1]}"))
    return videos


def _folder(root: Path, candidates: tuple[str, ...], *, holding: str) -> Path:
    for name in candidates:
        if (root / name / holding).is_file():
            return root / name
    raise InputError(
        f"dataset.root={root} must hold {holding}, itself or in {candidates[-1]}; unpack the official "
        "UCF101TrainTestSplits-RecognitionTask.zip there."
    )


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); unpack the official split files again.") from error
