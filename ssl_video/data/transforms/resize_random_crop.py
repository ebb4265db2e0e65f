"""The plain transform of order methods: a fixed resize and a random crop per clip."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssl_video.data.readers.base import FramePart
from ssl_video.data.transforms.base import (
    Drawn,
    Transform,
    channel_tensor,
    check_crop,
    check_probability,
    check_std,
    normalized,
    resize_argument,
    scaled_size,
)


class ResizeRandomCrop(Transform):
    """Resize, cut a square at a place drawn for each clip on its own, and scale to [0, 1].

    Clip order prediction (Xu et al., CVPR 2019; released code: resize to 128x171, crop 112 per clip, no flip, no
    normalisation). The released trick of seeding before each frame gives another crop per frame under today's
    torchvision; here a clip is cut in one call. A flip is drawn once for all clips of the sample: clips of one tuple
    that face different ways would be a task of their own.

    Args:
        resize: (height, width), or the short side with the aspect kept, in pixels.
        crop: side of the square, in pixels.
        mean: per channel, subtracted from the clip in [0, 1].
        std: per channel, divides what is left.
        flip_probability: of mirroring left and right.
    """

    def __init__(
        self,
        *,
        resize: int | Sequence[int] = (128, 171),
        crop: int = 112,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        flip_probability: float = 0.0,
    ) -> None:
        check_std(std)
        check_probability("flip_probability", flip_probability)
        self.resize = resize_argument(resize)
        check_crop(crop, resize=self.resize)
        self.crop = crop
        self.mean = channel_tensor("mean", mean)
        self.std = channel_tensor("std", std)
        self.flip_probability = flip_probability

    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        """Draw a corner for each clip and whether the sample is mirrored."""
        parts = [self._part(*size) for size in sizes]
        is_mirrored = torch.rand(()) < self.flip_probability
        return Drawn(parts, {"mirrored": is_mirrored.expand(len(parts)).clone()})

    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Turn `[N, 3, T, crop, crop]` uint8 into float32 of the same shape."""
        return normalized(clips, mirrored=values["mirrored"], mean=self.mean, std=self.std)

    def _part(self, height: int, width: int) -> FramePart:
        scaled = scaled_size(height, width, resize=self.resize)
        top, left = (int(torch.randint(side - self.crop + 1, ())) for side in scaled)
        return FramePart(size=scaled, window=(top, left, self.crop, self.crop))
