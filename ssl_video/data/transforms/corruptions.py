"""What can happen to a video between the camera and the net, in five severities: the shifts of an evaluation.

Noise, blur, compression and brightness are those of ImageNet-C (Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261)
with the values of its released code; the two that act on time are ours. Nothing here is a training augmentation as it
stands, but some are near to one: `ContrastiveTransform` blurs (sigma up to 2 pixels) and jitters brightness, so these
two are not held out for methods that are trained with it; noise, compression and what happens to time are.

Clips are spoilt as decoded, before the input transform. Noise and compression act on pixels as they come, so on small
frames they hide more than on ImageNet-C's: compare nets at one input size only. Chance comes from torch's global
generator, which the data set seeds for each sample, with a draw for every clip.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ssl_video.data.transforms.base import channels_first

SEVERITIES = (1, 2, 3, 4, 5)

# Short side, in pixels, of the frames whose middle 224 pixels ImageNet-C spoils; its blur is given in their pixels.
IMAGENET_C_SHORT_SIDE = 256


def corrupt(clips: Tensor, *, kind: str, severity: int) -> Tensor:
    """Return clips `[V, T, H, W, 3]` uint8, spoilt, in the same shape and type.

    Args:
        clips: as the readers deliver them.
        kind: one of `CORRUPTIONS`.
        severity: 1 to 5.

    Raises:
        ValueError: an unknown kind or severity, or clips of another shape or type.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(CORRUPTIONS)}.")
    if severity not in SEVERITIES:
        raise ValueError(f"severity={severity} must be 1, 2, 3, 4 or 5; clips that are not spoilt have none.")
    spoil = CORRUPTIONS[kind][severity - 1]
    spoilt = torch.stack([spoil(clip) for clip in channels_first(clips)])
    return spoilt.permute(0, 1, 3, 4, 2).contiguous()


def gaussian_noise(clip: Tensor, *, std: float) -> Tensor:
    """Add noise of deviation `std` (of values in 0..1) to every pixel of every frame, as a sensor does."""
    return _to_uint8(functional.gaussian_noise(clip.float() / 255, mean=0.0, sigma=std, clip=True))


def gaussian_blur(clip: Tensor, *, sigma: float, least: float) -> Tensor:
    """Blur every frame by `sigma` pixels of a frame with a short side of 256, but by `least` pixels of this frame."""
    short_side = min(clip.shape[-2:])
    own_sigma = max(sigma * short_side / IMAGENET_C_SHORT_SIDE, least)
    # Four sigma to each side, as in the released code; the border is mirrored, so it reaches no further than the frame.
    reach = min(math.ceil(4 * own_sigma), short_side - 1)
    blurred: Tensor = functional.gaussian_blur(clip, kernel_size=[2 * reach + 1] * 2, sigma=[own_sigma] * 2)
    return blurred


def jpeg_compression(clip: Tensor, *, quality: int) -> Tensor:
    """Store and read each frame as a JPEG."""
    compressed: Tensor = functional.jpeg(clip, quality=quality)
    return compressed


def brightness(clip: Tensor, *, added: float) -> Tensor:
    """Add to the value of hue, saturation and value (in 0..1), up to 1; hue and saturation stay."""
    colours = clip.float() / 255
    value = colours.amax(dim=-3, keepdim=True)
    brighter = (value + added).clamp(max=1)
    # A colour is its value times what hue and saturation make of it; black has neither and becomes grey.
    return _to_uint8(torch.where(value > 0, colours / value * brighter, brighter))


def frame_drop(clip: Tensor, *, share: float) -> Tensor:
    """Lose that share of the frames, drawn for each clip: the last frame before stands in. The first is never lost."""
    num_frames = len(clip)
    lost = min(max(1, round(share * num_frames)), num_frames - 1)
    shown = torch.arange(num_frames)
    shown[1 + torch.randperm(num_frames - 1)[:lost]] = 0
    return clip[shown.cummax(dim=0).values]


def frame_rate(clip: Tensor, *, held: int) -> Tensor:
    """Hold every frame for that many frames, as in a video that was recorded at a lower rate and played at this one."""
    places = torch.arange(len(clip))
    return clip[places - places % held]


# By kind, what each severity does to a clip [T, 3, H, W] uint8. The values of the first four are those of ImageNet-C's
# released code; those of the last two are ours.
CORRUPTIONS: Mapping[str, Sequence[Callable[[Tensor], Tensor]]] = {
    "gaussian_noise": [partial(gaussian_noise, std=value) for value in (0.08, 0.12, 0.18, 0.26, 0.38)],
    # On small frames ImageNet-C's blur, scaled, would do nothing: the least are the values of CIFAR-10-C.
    "gaussian_blur": [
        partial(gaussian_blur, sigma=sigma, least=least)
        for sigma, least in ((1, 0.4), (2, 0.6), (3, 0.7), (4, 0.8), (6, 1.0))
    ],
    "jpeg_compression": [partial(jpeg_compression, quality=value) for value in (25, 18, 15, 10, 7)],
    "brightness": [partial(brightness, added=value) for value in (0.1, 0.2, 0.3, 0.4, 0.5)],
    "frame_drop": [partial(frame_drop, share=value) for value in (1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8)],
    "frame_rate": [partial(frame_rate, held=value) for value in (2, 3, 4, 6, 8)],
}


def _to_uint8(clip: Tensor) -> Tensor:
    """Turn values in 0..1 into the nearest of 0..255."""
    return (clip * 255).round_().clamp_(0, 255).to(torch.uint8)
