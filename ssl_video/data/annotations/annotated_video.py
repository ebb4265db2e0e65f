"""What annotation files say of one video, whatever their format."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video of a data set.

    Attributes:
        path: relative to the data set's root, with forward slashes.
        labels: label columns by name; None where this video has no label.
        split: train, val or test, or None where nothing says.
        group: what must not be separated by a split, such as the recording that clips were cut from.
    """

    path: str
    labels: Mapping[str, str | None] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None
