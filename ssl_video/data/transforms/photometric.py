"""Colour jitter, greyscale, channel mix, blur and solarising of many clips at once, each by its own values.

The same code works on one sample in a worker and on a whole batch on the device, and gives what torchvision's v2
functions give clip by clip, to 1e-5 of the range of the pixels. Why not theirs, or Kornia's: torchvision takes one
value for all that it is given, so a batch is a loop over its clips; Kornia takes values per clip, but one order of the
jitter for the batch and the grey of each frame, not of the clip, for the contrast. Both turn the hue by way of HSV,
which is more than half of all the work on a CPU, and write every step into new memory. `python -m
benchmark.augmentation` measures all three; its docstring says what came out and was chosen.

Which clips a step touches is decided on the CPU, where the values are drawn; nothing here waits for the device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_video.data.transforms.base import change_, moved, where

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# ITU-R 601, as in torchvision.
GRAY_WEIGHTS = (0.2989, 0.587, 0.114)

# Beyond so many values a batch is worked on part by part: what is needed on the way is a few times as much memory. On
# a CPU one clip at a time stays in the cache.
CHUNK_VALUES = {"cpu": 2**19, "cuda": 2**25}

# Steps that need a few planes on the way take so many pixels at a time on a CPU: planes of 128 kB stay in the cache and
# come from memory that the process holds, where larger ones are asked of the system each time.
CPU_PIXELS = 2**15
CPU_CHANNELS = 16  # of a blur: the convolution works on so many at once


class HueTurn(NamedTuple):
    """How a turn of the hue is made: `sixths` of the circle, which only swap channels, and a rest."""

    sixths: int
    is_forward: bool


def clips_at_once(clips: Tensor) -> int:
    """Return how many of these clips `[N, ...]` to work on together on the device that they are on."""
    values = CHUNK_VALUES.get(clips.device.type, CHUNK_VALUES["cuda"])
    return max(1, values // max(1, clips[0].numel())) if len(clips) else 1


def change_looks_(clips: Tensor, values: Mapping[str, Tensor], *, kernel_size: int) -> Tensor:
    """Change colours and sharpness of clips in place.

    Args:
        clips: `[N, 3, T, h, w]` float in [0, 1], contiguous. The arithmetic is in their type.
        values: on the CPU, as drawn by `ContrastiveTransform`: `jitter_order` `[N, 4]`, the steps of the jitter
            (0 brightness, 1 contrast, 2 saturation, 3 hue, -1 none) in the order in which they are made;
            `jitter_factors` `[N, 4]`, in the order of these numbers; `gray` `[N]` bool; `mixed` `[N]` bool and `mix`
            `[N, 3, 3]`, whose rows sum to 1; `blur_sigma` `[N]` in pixels, 0 for none; `solarized` `[N]` bool.
        kernel_size: pixels across the blur, odd.
    """
    for order in values["jitter_order"].unbind(1):
        _jitter_step_(clips, order.tolist(), values["jitter_factors"])
    change_(clips, where(values["gray"]), to_gray_)
    # A mix of three equal channels is that channel.
    mixed = where(values["mixed"] & ~values["gray"])
    change_(clips, mixed, lambda own: mix_channels_(own, moved(values["mix"][mixed], own.device)))
    blurred = where(values["blur_sigma"] > 0)
    sigmas = values["blur_sigma"][blurred]
    change_(clips, blurred, lambda own: blur_(own, moved(sigmas, own.device), kernel_size=kernel_size))
    return change_(clips, where(values["solarized"]), lambda own: torch.minimum(own, 1 - own))


def _jitter_step_(clips: Tensor, steps: list[int], factors: Tensor) -> None:
    """Make one step of the jitter, which may be another for each clip."""
    works: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
        BRIGHTNESS: change_brightness_,
        CONTRAST: change_contrast_,
        SATURATION: change_saturation_,
    }
    for step, work in works.items():
        places = [place for place, own in enumerate(steps) if own == step]
        chosen = factors[places, step]
        change_(clips, places, lambda own, w=work, f=chosen: w(own, moved(f, own.device)))  # type: ignore[misc]
    turns = [
        hue_turn(factor) if step == HUE else None for step, factor in zip(steps, factors[:, HUE].tolist(), strict=True)
    ]
    for turn in sorted({turn for turn, _ in filter(None, turns)}):
        places = [place for place, own in enumerate(turns) if own is not None and own[0] == turn]
        rests = torch.tensor([own[1] for own in turns if own is not None and own[0] == turn])
        change_(clips, places, lambda own, t=turn, r=rests: turn_hue_(own, moved(r, own.device), turn=t))  # type: ignore[misc]


def change_brightness_(clips: Tensor, factors: Tensor) -> Tensor:
    """Multiply clips `[n, 3, T, h, w]` by factors `[n]`, in place."""
    return clips.mul_(_per_clip(factors, clips)).clamp_(0, 1)


def change_contrast_(clips: Tensor, factors: Tensor) -> Tensor:
    """Move clips `[n, 3, T, h, w]` away from, or to, the mean grey of the whole clip by factors `[n]`, in place."""
    channels = clips.mean(dim=(2, 3, 4), dtype=torch.float32)
    gray = gray_of(channels[..., None, None, None]).flatten()
    return clips.mul_(_per_clip(factors, clips)).add_(_per_clip(gray * (1 - factors), clips)).clamp_(0, 1)


def change_saturation_(clips: Tensor, factors: Tensor) -> Tensor:
    """Move clips `[n, 3, T, h, w]` away from, or to, their greys by factors `[n]`, in place."""
    weights = 1 - _per_clip(factors, clips)
    for part in _parts(clips):
        part.lerp_(gray_of(part), weights).clamp_(0, 1)
    return clips


def gray_of(clips: Tensor) -> Tensor:
    """Return the greys `[n, 1, T, h, w]` of clips `[n, 3, T, h, w]`."""
    red, green, blue = clips.split(1, dim=1)
    gray: Tensor = (red * GRAY_WEIGHTS[0]).add_(green, alpha=GRAY_WEIGHTS[1]).add_(blue, alpha=GRAY_WEIGHTS[2])
    return gray


def to_gray_(clips: Tensor) -> Tensor:
    """Turn clips `[n, 3, T, h, w]` grey, in place."""
    for part in _parts(clips):
        part.copy_(gray_of(part).expand_as(part))
    return clips


def mix_channels_(clips: Tensor, matrices: Tensor) -> Tensor:
    """Multiply the channels of clips `[n, 3, T, h, w]` by matrices `[n, 3, 3]`, in place."""
    # Not by a matrix product: on a GPU its precision is whatever the run has set for its network.
    weights = matrices.to(clips.dtype)[..., None, None, None]
    for part in _parts(clips):
        channels = part.unbind(1)
        rows = [
            (channels[0] * row[:, 0]).addcmul_(channels[1], row[:, 1]).addcmul_(channels[2], row[:, 2])
            for row in weights.unbind(1)
        ]
        for channel, row in zip(channels, rows, strict=True):
            channel.copy_(row)
    return clips


def hue_turn(factor: float) -> tuple[HueTurn, float]:
    """Split a turn of the hue, in circles, into whole sixths and a rest of at most half a sixth, in sixths."""
    sixths = round(6 * factor)
    rest = 6 * factor - sixths
    return HueTurn(sixths % 6, rest >= 0), abs(rest)


def turn_hue_(clips: Tensor, rests: Tensor, *, turn: HueTurn) -> Tensor:
    """Turn the hue of clips `[n, 3, T, h, w]` in place, as by way of HSV but without it.

    In HSV the channels of a colour of largest value M and smallest m are, over the hue, one trapezium between m and M
    at three places a third of the circle apart: a sixth rising, two sixths M, a sixth falling, two sixths m. A turn by
    two sixths gives each channel's value to the next one; a turn by three mirrors the values, m + M - x; all whole
    sixths are made of these two. For the rest, d of at most half a sixth, the channel that follows tells where on its
    trapezium a channel x is: with t = (m + M) / 2 - next and l = (M - m) (1/2 - d) it moves to
    x + t - clamp(t, -l, l), where that lies between m and M. Going backward it is the channel before.

    Args:
        clips: in [0, 1].
        rests: `[n]` the rest of each clip's turn, in sixths of the circle, 0 to 1/2.
        turn: what all of them share.
    """
    shares = 0.5 - rests.to(clips.dtype)[:, None, None, None]
    for part in _parts(clips):
        _turn_part_(part.unbind(1), shares, turn=turn)
    return clips


def _turn_part_(channels: Sequence[Tensor], shares: Tensor, *, turn: HueTurn) -> None:
    """Turn the hue of three channels `[n, t, h, w]` in place; `shares` `[n, 1, 1, 1]` are 1/2 less the rests."""
    low = torch.minimum(torch.minimum(channels[0], channels[1]), channels[2])
    high = torch.maximum(torch.maximum(channels[0], channels[1]), channels[2])
    middle = (low + high).mul_(0.5)
    limit = (high - low).mul_(shares)
    negative = limit.neg()
    turned = []
    for place, channel in enumerate(channels):
        distance = middle - channels[(place + (1 if turn.is_forward else 2)) % 3]
        inside = torch.clamp(distance, negative, limit)
        turned.append(distance.sub_(inside).add_(channel).clamp_(low, high))
    is_mirrored = turn.sixths % 2 == 1
    swaps = (turn.sixths - 3 * is_mirrored) // 2
    for place, values in enumerate(turned):
        channels[(place + swaps) % 3].copy_(middle.mul(2).sub_(values) if is_mirrored else values)


def blur_(clips: Tensor, sigmas: Tensor, *, kernel_size: int) -> Tensor:
    """Blur each frame of clips `[n, 3, T, h, w]` by a Gaussian of its clip's own standard deviation, in place.

    What lies beyond the border is the frame's mirror image.

    Args:
        clips: contiguous, of frames larger than half the kernel.
        sigmas: `[n]` in pixels, above 0.
        kernel_size: pixels across, odd.
    """
    reach = kernel_size // 2
    away = torch.arange(-reach, reach + 1, device=clips.device, dtype=torch.float32)
    kernels = torch.softmax(-0.5 * (away / sigmas.to(torch.float32)[:, None]).square(), dim=1)
    # As one image, with a channel for each channel of each frame: then each has a kernel of its own.
    image = clips.view(-1, *clips.shape[-2:])
    weights = kernels[:, None].expand(-1, len(image) // len(clips), -1).reshape(len(image), kernel_size)
    together = CPU_CHANNELS if clips.device.type == "cpu" else len(image)
    for part, own in zip(image.split(together), weights.split(together), strict=True):
        part.copy_(_blurred(part, own))
    return clips


def _blurred(image: Tensor, kernels: Tensor) -> Tensor:
    """Blur channels `[n, h, w]` each by its own kernel `[n, k]`, in float32, as weights of bfloat16 do not sum to 1."""
    reach = kernels.shape[1] // 2
    blurred = image.to(torch.float32)[None]
    # Two passes, one along each axis, cost a sixth of one with the square kernel.
    for weights, padding in (
        (kernels[:, None, :, None], [0, 0, reach, reach]),
        (kernels[:, None, None, :], [reach, reach, 0, 0]),
    ):
        with torch.autocast(image.device.type, enabled=False):
            blurred = F.conv2d(F.pad(blurred, padding, mode="reflect"), weights, groups=len(image))
    return blurred[0]


def _parts(clips: Tensor) -> Sequence[Tensor]:
    """Views of a few frames of clips `[n, 3, T, h, w]` on a CPU; elsewhere all of them."""
    if clips.device.type != "cpu":
        return (clips,)
    frame = len(clips) * clips.shape[-2] * clips.shape[-1]
    parts: Sequence[Tensor] = clips.split(max(1, CPU_PIXELS // max(1, frame)), dim=2)
    return parts


def _per_clip(values: Tensor, clips: Tensor) -> Tensor:
    """`[n]` as `[n, 1, 1, 1, 1]` in the type of the clips."""
    return values.to(clips.dtype)[:, None, None, None, None]
