"""The input transform of evaluation: a fixed resize and one square or more, nothing random."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Literal, Self, get_args

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ssl_video.data.readers.base import FramePart
from ssl_video.data.transforms.base import (
    Drawn,
    Transform,
    channel_tensor,
    check_crop,
    check_std,
    normalized,
    resize_argument,
    scaled_size,
)

Crops = Literal["centre", "three", "ten"]


class ResizeCenterCrop(Transform):
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

    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        """Name the squares of each clip; nothing is drawn."""
        if not self.antialias:
            return Drawn([FramePart()] * len(sizes))
        parts, mirrored = [], []
        for size in sizes:
            scaled = scaled_size(*size, resize=self.resize)
            for top, left, is_mirrored in self._places(*scaled):
                parts.append(FramePart(size=scaled, window=(top, left, self.crop, self.crop)))
                mirrored.append(is_mirrored)
        return Drawn(parts, {"mirrored": torch.tensor(mirrored)})

    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Turn `[N, 3, T, h, w]` uint8 into `[N', 3, T, crop, crop]` float32, the crops of a clip together."""
        if not self.antialias:
            clips, values = self._cut_whole(clips)
        return normalized(clips, mirrored=values["mirrored"], mean=self.mean, std=self.std)

    def _places(self, height: int, width: int) -> list[tuple[int, int, bool]]:
        """Top left corner of each square of a resized frame, and whether it is shown mirrored."""
        bottom, right = height - self.crop, width - self.crop
        middle = (round(bottom / 2), round(right / 2))  # to even, as torchvision's center_crop does
        if self.crops == "centre":
            return [(*middle, False)]
        if self.crops == "three":
            upright = height > width
            ends = ((0, middle[1]), (bottom, middle[1])) if upright else ((middle[0], 0), (middle[0], right))
            return [(*place, False) for place in (ends[0], middle, ends[1])]
        corners = ((0, 0), (0, right), (bottom, 0), (bottom, right))
        # What lies at the left of the mirrored frame lies at the right of this one.
        mirrored = [(top, right - left, True) for top, left in (*corners, middle)]
        return [*((*place, False) for place in (*corners, middle)), *mirrored]

    def _cut_whole(self, clips: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Resize whole frames as torchvision does, and cut the squares."""
        size = scaled_size(*clips.shape[-2:], resize=self.resize)
        # On uint8 torchvision's newer functions round differently (one level in a fifth of the pixels), and on images
        # that are laid out otherwise too (one pixel in a hundred thousand), so each frame is one here as there. Clip
        # by clip, as floats of whole frames take four times the memory.
        resized = [
            functional.resize(clip.transpose(0, 1).float(), list(size), antialias=False)
            .round_()
            .to(torch.uint8)
            .transpose(0, 1)
            for clip in clips
        ]
        places = self._places(*size)
        squares = [
            [clip[..., top : top + self.crop, left : left + self.crop] for top, left, _ in places] for clip in resized
        ]
        mirrored = torch.tensor([is_mirrored for _, _, is_mirrored in places]).repeat(len(clips))
        return torch.stack([square for own in squares for square in own]), {"mirrored": mirrored}


def _check_crops(crops: str) -> None:
    if crops not in get_args(Crops):
        raise ValueError(f"crops={crops!r} must be one of {', '.join(get_args(Crops))}.")
