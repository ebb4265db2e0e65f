"""The input transform of evaluation: a fixed resize and the centre crop, nothing random."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.transforms.v2 import functional

from ssl_video.data.transforms.base import (
    channel_tensor,
    channels_first,
    check_crop,
    check_std,
    resize_argument,
    scaled_size,
    smaller_size,
    to_unit_range,
)


class ResizeCenterCrop:
    """Resize, cut the middle square, scale to [0, 1] and normalise.

    Args:
        resize: (height, width), or the short side with the aspect kept, in pixels.
        crop: side of the square, in pixels.
        mean: per channel, subtracted from the clip in [0, 1].
        std: per channel, divides what is left.
    """

    def __init__(
        self,
        *,
        resize: int | Sequence[int],
        crop: int,
        mean: Sequence[float] = (0.45, 0.45, 0.45),
        std: Sequence[float] = (0.225, 0.225, 0.225),
    ) -> None:
        check_std(std)
        self.resize = resize_argument(resize)
        check_crop(crop, resize=self.resize)
        self.crop = crop
        self.mean = channel_tensor("mean", mean)
        self.std = channel_tensor("std", std)

    def __call__(self, clips: Tensor) -> Tensor:
        """Turn `[V, T, H, W, 3]` uint8 into `[V, 3, T, crop, crop]` float32."""
        frames = channels_first(clips)
        size = scaled_size(*frames.shape[-2:], resize=self.resize)
        resized = functional.resize(frames, list(size), antialias=True)
        cropped = functional.center_crop(resized, [self.crop, self.crop])
        return (to_unit_range(cropped) - self.mean).div_(self.std)

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the (height, width) at which the reader may deliver frames of this size, None for full size."""
        return smaller_size(height, width, resize=self.resize)
