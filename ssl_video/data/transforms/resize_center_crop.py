"""The input transform of evaluation: a fixed resize and one square or more, nothing random."""

from collections.abc import Sequence
from copy import copy
from typing import Literal, Self, get_args

import torch
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

Crops = Literal["centre", "three", "ten"]


class ResizeCenterCrop:
    """Resize, cut the middle square (or several), scale to [0, 1] and normalise.

    Args:
        resize: (height, width), or the short side with the aspect kept, in pixels.
        crop: side of the square, in pixels.
        mean: per channel, subtracted from the clip in [0, 1].
        std: per channel, divides what is left.
        crops: `centre`, the middle square; `three`, the squares at the start, middle and end of the longer side (left
            to right, or top to bottom where the frame stands upright; Wang et al., CVPR 2018); `ten`, the four corners
            (top left, top right, bottom left, bottom right) and the middle, then the same of the mirrored frame, as
            torchvision's `ten_crop` orders them (Krizhevsky et al., NeurIPS 2012).
        antialias: False resizes whole frames by plain bilinear interpolation, to the bit as torchvision does for its
            published video weights; the reader does not scale then.
    """

    def __init__(
        self,
        *,
        resize: int | Sequence[int],
        crop: int,
        mean: Sequence[float] = (0.45, 0.45, 0.45),
        std: Sequence[float] = (0.225, 0.225, 0.225),
        crops: Crops = "centre",
        antialias: bool = True,
    ) -> None:
        check_std(std)
        self.resize = resize_argument(resize)
        check_crop(crop, resize=self.resize)
        _check_crops(crops)
        self.crop = crop
        self.mean = channel_tensor("mean", mean)
        self.std = channel_tensor("std", std)
        self.crops: Crops = crops
        self.antialias = antialias

    def with_crops(self, crops: Crops) -> Self:
        """Return the same transform with other squares.

        Raises:
            ValueError: another word than the three.
        """
        _check_crops(crops)
        other = copy(self)
        other.crops = crops
        return other

    def __call__(self, clips: Tensor) -> Tensor:
        """Turn `[V, T, H, W, 3]` uint8 into `[V * crops, 3, T, crop, crop]` float32, the crops of a clip together."""
        frames = self._resized(channels_first(clips))
        squares = torch.stack([self._cut(image, place) for image, place in self._places(frames)], dim=1)
        return (to_unit_range(squares.flatten(0, 1)) - self.mean).div_(self.std)

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the (height, width) at which the reader may deliver frames of this size, None for full size."""
        return smaller_size(height, width, resize=self.resize) if self.antialias else None

    def _resized(self, frames: Tensor) -> Tensor:
        size = list(scaled_size(*frames.shape[-2:], resize=self.resize))
        if self.antialias:
            smooth: Tensor = functional.resize(frames, size, antialias=True)
            return smooth
        # On uint8 torchvision's newer functions round differently (one level in a fifth of the pixels). Clip by clip,
        # as floats of whole frames take four times the memory.
        resized = [functional.resize(clip.float(), size, antialias=False).round_().to(torch.uint8) for clip in frames]
        return torch.stack(resized)

    def _places(self, frames: Tensor) -> list[tuple[Tensor, tuple[int, int]]]:
        """Images [V, T, 3, h, w] with the top left corner of a square to cut from each."""
        height, width = frames.shape[-2:]
        bottom, right = height - self.crop, width - self.crop
        middle = (round(bottom / 2), round(right / 2))  # to even, as torchvision's center_crop does
        if self.crops == "centre":
            return [(frames, middle)]
        if self.crops == "three":
            upright = height > width
            ends = ((0, middle[1]), (bottom, middle[1])) if upright else ((middle[0], 0), (middle[0], right))
            return [(frames, place) for place in (ends[0], middle, ends[1])]
        mirrored = functional.horizontal_flip(frames)
        corners = ((0, 0), (0, right), (bottom, 0), (bottom, right))
        return [(image, place) for image in (frames, mirrored) for place in (*corners, middle)]

    def _cut(self, frames: Tensor, place: tuple[int, int]) -> Tensor:
        top, left = place
        return frames[..., top : top + self.crop, left : left + self.crop]


def _check_crops(crops: str) -> None:
    if crops not in get_args(Crops):
        raise ValueError(f"crops={crops!r} must be one of {', '.join(get_args(Crops))}.")
