"""What annotation files say of one video, whatever their format."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Label = str | list[str] | None


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video of a data set, or a stretch of one.

    Attributes:
        path: relative to the data set's root, with forward slashes.
        labels: label columns by name: a class, a list of classes, or None where this video has no label.
        split: train, val or test, or None where nothing says.
        group: what must not be separated by a split, such as the recording that clips were cut from.
        start_seconds: where the stretch begins in the file; None is the file's begin.
        end_seconds: where it ends; None is the file's end.
        video_id: the same for all stretches of one recording, in one file or several; the path by default.
        segment_id: unique in the data set; the video and the start by default.
    """

    path: str
    labels: Mapping[str, Label] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    video_id: str | None = None
    segment_id: str | None = None
