"""Labels from folder names: root/<label>/video.mp4."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from ssl_video.data.annotations.annotated_video import AnnotatedVideo


def read_folder_labels(paths: Sequence[str]) -> list[AnnotatedVideo]:
    """Takes the first folder of each path as its label if every video lies in one; else no video has a label.

    Args:
        paths: videos, relative to the root, with forward slashes.

    Returns:
        One video per path, in the same order.
    """
    parts = [PurePosixPath(path).parts for path in paths]
    if any(len(part) < 2 for part in parts):
        return [AnnotatedVideo(path) for path in paths]
    return [AnnotatedVideo(path, {"label": part[0]}) for path, part in zip(paths, parts, strict=True)]
