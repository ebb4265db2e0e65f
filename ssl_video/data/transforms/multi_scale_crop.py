"""The crop of TSN, TSM and TCL: four scales, height and width nearly alike, thirteen places."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssl_video.data.readers.base import FramePart
from ssl_video.data.transforms.base import (
    Drawn,
    Transform,
    channel_tensor,
    check_probability,
    check_std,
    normalized,
)

# Corners, centre, edge middles, quarter points: in fourths of the way that the crop can move, (down, right).
PLACES = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3))


class MultiScaleCrop(Transform):
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
    ) -> None:
        check_std(std)
        check_probability("flip_probability", flip_probability)
        if size < 1:
            raise ValueError(f"size={size} must be at least 1 pixel.")
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
        self.mean = channel_tensor("mean", mean)
        self.std = channel_tensor("std", std)
        self.flip_probability = flip_probability

    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        """Draw scale, place and mirroring of each clip."""
        parts, mirrored = [], []
        for size in sizes:
            parts.append(self._part(*size))
            mirrored.append(torch.rand(()) < self.flip_probability)
        return Drawn(parts, {"mirrored": torch.stack(mirrored)})

    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Turn `[N, 3, T, size, size]` uint8 into float32 of the same shape."""
        return normalized(clips, mirrored=values["mirrored"], mean=self.mean, std=self.std)

    def _part(self, frame_height: int, frame_width: int) -> FramePart:
        height, width = (
            max(1, int(min(frame_height, frame_width) * scale)) for scale in self.pairs[_drawn(len(self.pairs))]
        )
        down, right = PLACES[_drawn(len(PLACES))]
        top, left = down * ((frame_height - height) // 4), right * ((frame_width - width) // 4)
        return FramePart(box=(top, left, height, width), size=(self.size, self.size))


def _drawn(number: int) -> int:
    return int(torch.randint(number, ()))
