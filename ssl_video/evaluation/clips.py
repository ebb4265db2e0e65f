"""Which clips of a video a protocol wants to see, and how the features of a clip are pooled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Part = Literal["train", "test"]
Crops = Literal["centre", "three", "ten"]
Order = Literal["normal", "frozen", "shuffled", "reversed"]
Pooling = Literal["mean", "conv5_max"]

# Squares that are cut out of each clip.
NUM_CROPS: Mapping[Crops, int] = {"centre": 1, "three": 3, "ten": 10}

# The name of a protocol's own clips, beside which it may want others.
NORMAL = "normal"


@dataclass(frozen=True)
class ClipSpec:
    """Evenly spread clips of a video, in one state of the pixels. Equal specs are extracted once.

    Attributes:
        num_clips: clips per video.
        crops: squares per clip: the middle one, three along the longer side, or the four corners and the middle, each
            also mirrored.
        order: of the frames inside a clip: as they are, the clip's middle frame only, in a drawn order, or backwards.
        pooling: of the last feature map `[D, t, h, w]`: its mean, or the maxima over 2 x 2 places, flattened (the
            conv5 features of clip order prediction).
        stride_factor: multiplies the distance between neighbouring frames; 2 shows the video at double speed.
        num_frames: frames per clip; None takes those the backbone was trained with.
        corruption: what spoils the frames; see `ssl_video.data.transforms.corruptions`. None leaves them.
        severity: of the corruption, 1 to 5; 0 without one.
    """

    num_clips: int = 5
    crops: Crops = "centre"
    order: Order = "normal"
    pooling: Pooling = "mean"
    stride_factor: int = 1
    num_frames: int | None = None
    corruption: str | None = None
    severity: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that ask for nothing."""
        if self.num_clips < 1:
            raise ValueError(f"num_clips={self.num_clips} must be at least 1; a video is seen through its clips.")
        if self.stride_factor < 1:
            raise ValueError(f"stride_factor={self.stride_factor} must be at least 1.")
        if (self.corruption is None) != (self.severity == 0):
            raise ValueError(
                f"corruption={self.corruption} with severity={self.severity}: a corruption has a severity from 1 to 5, "
                "and none has 0."
            )

    @property
    def num_views(self) -> int:
        """Clips times crops, V of the features `[N, V, D]`; the crops of a clip stand together."""
        return self.num_clips * NUM_CROPS[self.crops]
