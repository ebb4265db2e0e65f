"""The augmentation of contrastive methods: crop, flip, colour, grey, blur, solarise, one draw per clip."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

from ssl_video.data.readers.base import Box, FramePart
from ssl_video.data.transforms.base import (
    Drawn,
    Transform,
    channel_tensor,
    check_probability,
    check_std,
    mirror_,
    moved,
)
from ssl_video.data.transforms.photometric import HUE, change_looks_, clips_at_once

_TRIES = 10
# Uniform numbers that are drawn for a clip: for its look, and for the tries of its crop and the crop's two places.
_NUMBERS_OF_LOOK = 24
_NUMBERS = _NUMBERS_OF_LOOK + 2 * _TRIES + 2


class _Look(NamedTuple):
    """What is drawn for a clip beside its crop, by the names that `finish` knows."""

    mirrored: bool
    jitter_order: list[int]
    jitter_factors: list[float]
    gray: bool
    mixed: bool
    mix: list[list[float]]
    blur_sigma: float
    solarized: bool


class ContrastiveTransform(Transform):
    """Random crop, flip, colour jitter, greyscale, blur, solarise, drawn once per clip and applied to all its frames.

    MoCo v2 (Chen et al., arXiv 2003.04297) in the video form of the rho-study (Feichtenhofer et al., CVPR 2021, arXiv
    2104.14558). Differences to the released code:

    - Crop and resize come first, colour and blur work on the small frames. There it is colour, normalisation, crop.
      This order is several times faster on one core; blur, in pixels, is then relative to `size`.
    - Blur is per frame with one sigma. There it runs over all frames stacked in one tall image, and leaks across them.

    As there, contrast is measured against the mean grey of the whole clip, not of each frame.

    CVRL (Qian et al., CVPR 2021) and the asymmetric views of MoCo v3 are settings of it, one for each view (`PerView`).
    Differences to CVRL's released code: contrast there is measured against the mean of each channel on its own, and
    the blur takes what lies beyond the border as black, here as the frame's mirror image. Solarising is the last step,
    as there.

    Args:
        size: height and width of the clips given out, in pixels.
        min_area: smallest share of the frame's area that a crop covers.
        max_area: largest share.
        min_aspect: smallest width / height of a crop by area, in pixels of the frame.
        max_aspect: largest.
        short_side: (lowest, highest) short side in pixels. If given, the frame is scaled to a short side drawn from
            this range and a square of `size` is cut, instead of a crop by area; both ends are included.
        flip_probability: of mirroring left and right.
        color_jitter: strengths of brightness, contrast, saturation, hue, as in torchvision's `ColorJitter`.
        jitter_probability: of the colour jitter.
        gray_probability: of turning the clip grey.
        blur_probability: of the Gaussian blur.
        blur_sigma: (lowest, highest) standard deviation of the blur, in pixels.
        blur_kernel_size: pixels across the blur, odd; None reaches three times the highest `blur_sigma` to each side.
        solarize_probability: of inverting all values from 0.5 on.
        channel_mix_probability: of mixing the colour channels by a random 3x3 matrix whose rows are uniform over
            all weights that sum to 1. Greys stay; colours become useless for telling videos apart.
        mean: per channel, subtracted from the clip in [0, 1].
        std: per channel, divides what is left.
        consistent: one draw per clip. False draws anew for each frame: CVRL's ablation, which destroys motion.
        arithmetic: of the colours. `bfloat16` moves half the memory on a GPU and is off by a few grey levels.
    """

    def __init__(
        self,
        *,
        size: int,
        min_area: float = 0.2,
        max_area: float = 1.0,
        min_aspect: float = 3 / 4,
        max_aspect: float = 4 / 3,
        short_side: Sequence[int] | None = None,
        flip_probability: float = 0.5,
        color_jitter: Sequence[float] = (0.4, 0.4, 0.4, 0.1),
        jitter_probability: float = 0.8,
        gray_probability: float = 0.2,
        blur_probability: float = 0.5,
        blur_sigma: Sequence[float] = (0.1, 2.0),
        blur_kernel_size: int | None = None,
        solarize_probability: float = 0.0,
        channel_mix_probability: float = 0.0,
        mean: Sequence[float] = (0.45, 0.45, 0.45),
        std: Sequence[float] = (0.225, 0.225, 0.225),
        consistent: bool = True,
        arithmetic: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        probabilities = {
            "flip_probability": flip_probability,
            "jitter_probability": jitter_probability,
            "gray_probability": gray_probability,
            "blur_probability": blur_probability,
            "solarize_probability": solarize_probability,
            "channel_mix_probability": channel_mix_probability,
        }
        for name, value in probabilities.items():
            check_probability(name, value)
        check_std(std)
        if size < 1:
            raise ValueError(f"size={size} must be at least 1 pixel.")
        self.size = size
        self.short_side = _short_side_range(short_side, size=size)
        self.channel_mix_probability = channel_mix_probability
        self.mean = channel_tensor("mean", mean)
        self.std = channel_tensor("std", std)
        self.consistent = consistent
        self.arithmetic = _arithmetic(arithmetic)
        self.area = _area_range(min_area, max_area)
        self.aspect = _aspect_range(min_aspect, max_aspect)
        self.flip_probability = flip_probability
        self._jitter = _jitter_limits(color_jitter)
        self.jitter_probability = jitter_probability
        self.gray_probability = gray_probability
        self.blur_sigma = _blur_sigma(blur_sigma)
        self.blur_kernel_size = _blur_kernel_size(blur_kernel_size, sigma=self.blur_sigma, size=size)
        self.blur_probability = blur_probability
        self.solarize_probability = solarize_probability

    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        """Draw crop and looks of each clip, or of each frame of each clip."""
        each = 1 if self.consistent else num_frames
        # All numbers at once, and the same number whatever is switched on: no draw depends on another setting, and
        # a call of torch for each would be most of the cost.
        numbers = torch.rand(len(sizes), each, _NUMBERS, dtype=torch.float64).tolist()
        looks = [[self._look(iter(own)) for own in clip] for clip in numbers]
        parts = [
            [self._part(*size, iter(own[_NUMBERS_OF_LOOK:])) for own in clip]
            for size, clip in zip(sizes, numbers, strict=True)
        ]
        if self.consistent:
            return Drawn([own[0] for own in parts], _table([own[0] for own in looks]))
        return Drawn(parts, _table([look for clip in looks for look in clip], shape=(len(sizes), num_frames)))

    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Turn `[N, 3, T, size, size]` uint8 into float32 of the same shape."""
        if self.consistent:
            return self._finish(clips, values)
        frames = clips.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        finished = self._finish(frames, {name: value.flatten(0, 1) for name, value in values.items()})
        each = finished.view(len(clips), -1, *finished.shape[1:2], *finished.shape[-2:])
        return each.transpose(1, 2).contiguous()

    def _finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Finish clips by values with one entry for each, part by part where they are many."""
        mean, std = moved(self.mean, clips.device), moved(self.std, clips.device)
        finished = torch.empty(clips.shape, dtype=torch.float32, device=clips.device)
        together = clips_at_once(clips)
        for start in range(0, len(clips), together):
            own = {name: value[start : start + together] for name, value in values.items()}
            out = finished[start : start + together]
            work = out if self.arithmetic == torch.float32 else torch.empty_like(out, dtype=self.arithmetic)
            work.copy_(clips[start : start + together]).div_(255)
            mirror_(work, own["mirrored"])
            change_looks_(work, own, kernel_size=self.blur_kernel_size)
            if work is not out:
                out.copy_(work)
            out.sub_(mean).div_(std)
        return finished

    def _look(self, numbers: Iterator[float]) -> _Look:
        is_mirrored = next(numbers) < self.flip_probability
        is_jittered = next(numbers) < self.jitter_probability
        keys, places = [next(numbers) for _ in range(4)], [next(numbers) for _ in range(4)]
        order = [step if self._jitter[step] and is_jittered else -1 for step in sorted(range(4), key=keys.__getitem__)]
        factors = [
            limits[0] + place * (limits[1] - limits[0]) if limits and is_jittered else 1.0 if step != HUE else 0.0
            for step, (limits, place) in enumerate(zip(self._jitter, places, strict=True))
        ]
        is_gray = next(numbers) < self.gray_probability
        is_mixed = next(numbers) < self.channel_mix_probability
        mix = _mix([next(numbers) for _ in range(9)])
        is_blurred, sigma = next(numbers) < self.blur_probability, next(numbers)
        sigma = self.blur_sigma[0] + sigma * (self.blur_sigma[1] - self.blur_sigma[0]) if is_blurred else 0.0
        is_solarized = next(numbers) < self.solarize_probability
        return _Look(is_mirrored, order, factors, is_gray, is_mixed, mix, sigma, is_solarized)

    def _part(self, height: int, width: int, numbers: Iterator[float]) -> FramePart:
        crop = self._short_side_crop if self.short_side is not None else self._area_crop
        return FramePart(box=crop(height, width, numbers), size=(self.size, self.size))

    def _area_crop(self, height: int, width: int, numbers: Iterator[float]) -> Box:
        """Draw a crop by torchvision's law: ten tries, and the middle where none fits."""
        (low, high), (narrow, wide) = self.area, self.aspect
        for _ in range(_TRIES):
            area = height * width * (low + next(numbers) * (high - low))
            aspect = narrow * (wide / narrow) ** next(numbers)
            rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < rows <= height and 0 < columns <= width:
                return _place(height - rows, numbers), _place(width - columns, numbers), rows, columns
        rows = min(height, round(width / narrow))
        columns = min(width, round(height * wide))
        return (height - rows) // 2, (width - columns) // 2, rows, columns

    def _short_side_crop(self, height: int, width: int, numbers: Iterator[float]) -> Box:
        """Scale to a drawn short side and cut a random square: one crop in source pixels, then one resize."""
        assert self.short_side is not None
        drawn = self.short_side[0] + _place(self.short_side[1] - self.short_side[0], numbers)
        side = max(1, round(self.size * min(height, width) / drawn))
        return _place(height - side, numbers), _place(width - side, numbers), side, side


def _table(looks: Sequence[_Look], *, shape: tuple[int, ...] | None = None) -> dict[str, Tensor]:
    """Stack looks, in one dimension or in those of `shape`."""
    columns = {name: torch.tensor(values) for name, values in zip(_Look._fields, zip(*looks, strict=True), strict=True)}
    return columns if shape is None else {name: values.unflatten(0, shape) for name, values in columns.items()}


def _place(room: int, numbers: Iterator[float]) -> int:
    """Draw from 0..room."""
    return int(next(numbers) * (room + 1))


def _mix(numbers: Sequence[float]) -> list[list[float]]:
    """Return `[3, 3]` with rows uniform on the simplex (Dirichlet(1, 1, 1)), from nine uniform numbers."""
    weights = [-math.log1p(-number) for number in numbers]
    rows = [weights[place : place + 3] for place in (0, 3, 6)]
    return [[weight / sum(row) for weight in row] for row in rows]


def _jitter_limits(strengths: Sequence[float]) -> list[tuple[float, float] | None]:
    """Return the range of each factor, in the order of the steps; None for a strength of 0, which leaves a step out."""
    if len(strengths) != 4:
        raise ValueError(
            f"color_jitter={list(strengths)} must have 4 values: strength of brightness, contrast, saturation, hue."
        )
    brightness, contrast, saturation, hue = (float(strength) for strength in strengths)
    # torchvision's own reading of them, and its checks.
    jitter = v2.ColorJitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    return [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]


def _blur_sigma(sigma: Sequence[float]) -> tuple[float, float]:
    if len(sigma) != 2 or not 0 < sigma[0] <= sigma[1]:
        raise ValueError(f"blur_sigma={list(sigma)} must be two values, lowest and highest, both above 0.")
    return float(sigma[0]), float(sigma[1])


def _blur_kernel_size(kernel_size: int | None, *, sigma: tuple[float, float], size: int) -> int:
    if kernel_size is None:
        kernel_size = 2 * min(math.ceil(3 * sigma[1]), size - 1) + 1
    # Reflection at the border takes half the kernel from inside the frame.
    if kernel_size < 1 or kernel_size % 2 == 0 or kernel_size // 2 >= size:
        raise ValueError(
            f"blur_kernel_size={kernel_size} must be odd, at least 1 and less than twice the size={size} of the clips."
        )
    return kernel_size


def _arithmetic(name: str) -> torch.dtype:
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in types:
        raise ValueError(f"arithmetic={name!r} must be one of {', '.join(types)}.")
    return types[name]


def _area_range(min_area: float, max_area: float) -> tuple[float, float]:
    if not 0 < min_area <= max_area <= 1:
        raise ValueError(
            f"min_area={min_area}, max_area={max_area} must satisfy 0 < min_area <= max_area <= 1; "
            "they are shares of the frame."
        )
    return min_area, max_area


def _aspect_range(min_aspect: float, max_aspect: float) -> tuple[float, float]:
    if not 0 < min_aspect <= max_aspect:
        raise ValueError(
            f"min_aspect={min_aspect}, max_aspect={max_aspect} must satisfy 0 < min_aspect <= max_aspect; "
            "they are width / height."
        )
    return min_aspect, max_aspect


def _short_side_range(short_side: Sequence[int] | None, *, size: int) -> tuple[int, int] | None:
    if short_side is None:
        return None
    if len(short_side) != 2 or not size <= short_side[0] <= short_side[1]:
        raise ValueError(
            f"short_side={list(short_side)} must be two values, lowest and highest, at least size={size}: "
            "the square is cut out of the scaled frame."
        )
    return int(short_side[0]), int(short_side[1])
