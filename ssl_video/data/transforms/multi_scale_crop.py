"""The crop of TSN, TSM and TCL: four scales, height and width nearly alike, thirteen places."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ssl_video.data.transforms.base import (
    channel_tensor,
    channels_first,
    check_probability,
    check_std,
    smaller_size,
    to_unit_range,
)

# Corners, centre, edge middles, quarter points: in fourths of the way that the crop can move, (down, right).
PLACES = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3))


class MultiScaleCrop:
    """Cut one of thirteen fixed places in one of the scales, resize bilinearly, normalise; one draw per clip.

    As in the released code of TCL (Singh et al., CVPR 2021), which has it from TSN. Height and width of the crop are
    shares of the short side; their places in the list of scales differ by ``max_distortion`` at most, and every such
    pair is equally likely. No flip by default: in Something-Something and Jester left and right are classes.

    Args:
        size: height and width of the clips given out, in pixels.
        scales: shares of the short side, in descending order.
        max_distortion: how far apart in ``scales`` height and width may lie.
        flip_probability: of mirroring left and right.
        mean: per channel, subtracted from the clip in [0, 1].
        std: per channel, divides what is left.
        decode_short_side: short side in pixels at which the reader may deliver larger frames; None reads full size.
    """

    def __init__(
        self,
        *,
        size: int = 224,
        scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66),
        max_distortion: int = 1,
        flip_probability: float = 0.0,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        decode_short_side: int | None = None,
    ) -> None:
        check_std(std)
        check_probability("flip_probability", flip_probability)
        if size < 1 or (decode_short_side is not None and decode_short_side < 1):
            raise ValueError(f"size={size} and decode_short_side={decode_short_side} must be at least 1 pixel.")
        if not scales or not all(0 < scale <= 1 for scale in scales) or max_distortion < 0:
            raise ValueError(
                f"scales={list(scales)} must be shares in (0, 1], at least one, and max_distortion={max_distortion} 0 "
                "or more."
            )
        self.size = size
        self.pairs = [
            (height, width)
            for row, height in enumerate(scales)
            for column, width in enumerate(scales)
            if abs(row - column) <= max_distortion
        ]
        self.decode_short_side = decode_short_side
        self.mean = channel_tensor("mean", mean)
        self.std = channel_tensor("std", std)
        self._flip = v2.RandomHorizontalFlip(flip_probability)

    def __call__(self, clips: Tensor) -> Tensor:
        """Turn `[V, T, H, W, 3]` uint8 into `[V, 3, T, size, size]` float32, one draw per clip."""
        cropped = torch.stack([self._flip(self._crop(clip)) for clip in channels_first(clips)])
        return (to_unit_range(cropped) - self.mean).div_(self.std)

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the (height, width) at which the reader may deliver frames of this size, None for full size."""
        if self.decode_short_side is None:
            return None
        return smaller_size(height, width, resize=self.decode_short_side)

    def _crop(self, clip: Tensor) -> Tensor:
        """Cut `[T, 3, H, W]` uint8 to `[T, 3, size, size]`."""
        frame_height, frame_width = clip.shape[-2:]
        height, width = (
            max(1, int(min(frame_height, frame_width) * scale)) for scale in self.pairs[_drawn(len(self.pairs))]
        )
        down, right = PLACES[_drawn(len(PLACES))]
        top, left = down * ((frame_height - height) // 4), right * ((frame_width - width) // 4)
        square: Tensor = functional.resized_crop(clip, top, left, height, width, [self.size, self.size], antialias=True)
        return square


def _drawn(number: int) -> int:
    return int(torch.randint(number, ()))
