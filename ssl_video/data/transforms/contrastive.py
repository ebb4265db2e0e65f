"""The augmentation of contrastive methods: crop, flip, colour, grey, blur, solarise, one draw per clip."""

import math
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


class ContrastiveTransform:
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
        decode_short_side: short side in pixels at which the reader may deliver larger frames; None reads full size.
        consistent: one draw per clip. False draws anew for each frame: CVRL's ablation, which destroys motion.
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
        decode_short_side: int | None = None,
        consistent: bool = True,
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
        if size < 1 or (decode_short_side is not None and decode_short_side < 1):
            raise ValueError(f"size={size} and decode_short_side={decode_short_side} must be at least 1 pixel.")
        self.size = size
        self.short_side = _short_side_range(short_side, size=size)
        self.channel_mix_probability = channel_mix_probability
        self.decode_short_side = decode_short_side
        self.mean = channel_tensor("mean", mean)
        self.std = channel_tensor("std", std)
        self.consistent = consistent
        self._area_crop = v2.RandomResizedCrop(
            size,
            scale=_area_range(min_area, max_area),
            ratio=_aspect_range(min_aspect, max_aspect),
            antialias=True,
        )
        self._flip = v2.RandomHorizontalFlip(flip_probability)
        self._jitter = v2.RandomApply([_color_jitter(color_jitter)], p=jitter_probability)
        self._gray = v2.RandomGrayscale(gray_probability)
        self._blur = v2.RandomApply([_gaussian_blur(blur_sigma, blur_kernel_size, size=size)], p=blur_probability)
        # Without it nothing is drawn: runs from before there was solarising go on with the same draws.
        self._solarize = (
            v2.RandomSolarize(threshold=0.5, p=solarize_probability) if solarize_probability > 0 else v2.Identity()
        )

    def __call__(self, clips: Tensor) -> Tensor:
        """Turn `[V, T, H, W, 3]` uint8 into `[V, 3, T, size, size]` float32, one draw per clip (or frame)."""
        frames = channels_first(clips)
        if self.consistent:
            return torch.stack([self._one_clip(clip) for clip in frames])
        clips_of_one = [[self._one_clip(frame) for frame in clip.split(1)] for clip in frames]
        return torch.stack([torch.cat(clip, dim=1) for clip in clips_of_one])

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the (height, width) at which the reader may deliver frames of this size, None for full size."""
        if self.decode_short_side is None:
            return None
        return smaller_size(height, width, resize=self.decode_short_side)

    def _one_clip(self, clip: Tensor) -> Tensor:
        """Turn `[T, 3, H, W]` uint8 into `[3, T, size, size]` float32."""
        cropped = self._area_crop(clip) if self.short_side is None else self._short_side_crop(clip)
        frames = to_unit_range(self._flip(cropped))
        # One tall image [3, T * size, size]: torchvision then takes the mean for the contrast over the whole clip.
        tall = self._gray(self._jitter(frames.flatten(1, 2)))
        if torch.rand(()) < self.channel_mix_probability:
            tall = _mix_channels(tall)
        augmented: Tensor = self._solarize(self._blur(tall.unflatten(1, frames.shape[1:3])))
        return (augmented - self.mean).div_(self.std)

    def _short_side_crop(self, clip: Tensor) -> Tensor:
        """Scale to a drawn short side and cut a random square: one crop in source pixels, then one resize."""
        assert self.short_side is not None
        height, width = clip.shape[-2:]
        drawn = int(torch.randint(self.short_side[0], self.short_side[1] + 1, ()))
        side = max(1, round(self.size * min(height, width) / drawn))
        top = int(torch.randint(height - side + 1, ()))
        left = int(torch.randint(width - side + 1, ()))
        square: Tensor = functional.resized_crop(clip, top, left, side, side, [self.size, self.size], antialias=True)
        return square


def _mix_channels(image: Tensor) -> Tensor:
    """Mix the channels of `[3, h, w]` by a random matrix with rows uniform on the simplex (Dirichlet(1, 1, 1))."""
    weights = torch.empty(3, 3).exponential_()
    weights /= weights.sum(dim=1, keepdim=True)
    return (weights @ image.flatten(1)).view_as(image)


def _color_jitter(strengths: Sequence[float]) -> v2.ColorJitter:
    if len(strengths) != 4:
        raise ValueError(
            f"color_jitter={list(strengths)} must have 4 values: strength of brightness, contrast, saturation, hue."
        )
    brightness, contrast, saturation, hue = (float(strength) for strength in strengths)
    return v2.ColorJitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)


def _gaussian_blur(sigma: Sequence[float], kernel_size: int | None, *, size: int) -> v2.GaussianBlur:
    if len(sigma) != 2 or not 0 < sigma[0] <= sigma[1]:
        raise ValueError(f"blur_sigma={list(sigma)} must be two values, lowest and highest, both above 0.")
    if kernel_size is None:
        kernel_size = 2 * min(math.ceil(3 * sigma[1]), size - 1) + 1
    # Reflection at the border takes half the kernel from inside the frame.
    if kernel_size < 1 or kernel_size % 2 == 0 or kernel_size // 2 >= size:
        raise ValueError(
            f"blur_kernel_size={kernel_size} must be odd, at least 1 and less than twice the size={size} of the clips."
        )
    return v2.GaussianBlur(kernel_size=kernel_size, sigma=(float(sigma[0]), float(sigma[1])))


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
