"""The plain transform of order methods: a fixed resize and a random crop per clip."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ssl_video.data.transforms.base import (
    channel_tensor,
    channels_first,
    check_crop,
    check_probability,
    check_std,
    resize_argument,
    scaled_size,
    smaller_size,
    to_unit_range,
)


class ResizeRandomCrop:
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
        self._crop = v2.RandomCrop(crop)
        self._flip = v2.RandomHorizontalFlip(flip_probability)

    def __call__(self, clips: Tensor) -> Tensor:
        """Turn `[V, T, H, W, 3]` uint8 into `[V, 3, T, crop, crop]` float32."""
        frames = channels_first(clips)
        size = scaled_size(*frames.shape[-2:], resize=self.resize)
        resized = functional.resize(frames, list(size), antialias=True)
        cropped = torch.stack([self._crop(clip) for clip in resized])
        return (to_unit_range(self._flip(cropped)) - self.mean).div_(self.std)

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the (height, width) at which the reader may deliver frames of this size, None for full size."""
        return smaller_size(height, width, resize=self.resize)
