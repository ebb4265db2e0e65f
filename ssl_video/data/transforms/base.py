"""What the transforms share: the layout they take, the layout they give, and the checks of their arguments.

A transform turns `[V, T, H, W, 3]` uint8 into `[V, C, T, h, w]` float32. Its randomness comes from torch's global
generator only, which the data set seeds for each sample; whatever is drawn is drawn once per clip (or per sample) and
is the same for all frames of the clip. Its `decode_size` names the size at which the reader may deliver the frames.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def channels_first(clips: Tensor) -> Tensor:
    """Return decoded clips `[V, T, H, W, 3]` uint8 as a view `[V, T, 3, H, W]`.

    Raises:
        ValueError: another shape or type.
    """
    if clips.ndim != 5 or clips.shape[-1] != 3 or clips.dtype != torch.uint8:
        raise ValueError(
            f"clips of shape {tuple(clips.shape)} and type {clips.dtype} must be [V, T, H, W, 3] uint8, "
            "as the readers deliver them."
        )
    return clips.permute(0, 1, 4, 2, 3)


def to_unit_range(clips: Tensor) -> Tensor:
    """Turn clips `[..., T, 3, h, w]` uint8 into contiguous `[..., 3, T, h, w]` float32 in [0, 1]."""
    return clips.transpose(-4, -3).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def channel_tensor(name: str, values: Sequence[float]) -> Tensor:
    """Return one value per colour channel as `[3, 1, 1, 1]`, to be broadcast over `[..., 3, T, h, w]`."""
    if len(values) != 3:
        raise ValueError(f"{name}={list(values)} must have 3 values, one per colour channel.")
    return torch.tensor([float(value) for value in values]).view(3, 1, 1, 1)


def check_std(std: Sequence[float]) -> None:
    """Raise ValueError unless every standard deviation is above 0."""
    if min(std) <= 0:
        raise ValueError(f"std={list(std)} must be above 0; the clips are divided by it.")


def check_probability(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must lie in [0, 1]; it is a probability.")


def scaled_size(height: int, width: int, *, resize: int | tuple[int, int]) -> tuple[int, int]:
    """Return the size after a resize to a short side (int, aspect kept) or to (height, width)."""
    if not isinstance(resize, int):
        return resize
    if height <= width:
        return resize, resize * width // height
    return resize * height // width, resize


def smaller_size(height: int, width: int, *, resize: int | tuple[int, int]) -> tuple[int, int] | None:
    """Return the size after the resize if the reader saves work by it (fewer pixels to pass on), else None."""
    target = scaled_size(height, width, resize=resize)
    return target if target[0] * target[1] < height * width else None


def resize_argument(resize: int | Sequence[int]) -> int | tuple[int, int]:
    """Return `resize` as an int (short side) or a tuple (height, width); a list comes from YAML."""
    if isinstance(resize, int):
        sides: tuple[int, ...] = (resize,)
    else:
        sides = tuple(int(side) for side in resize)
        if len(sides) != 2:
            raise ValueError(f"resize={list(resize)} must be one short side or two numbers, height and width.")
    if min(sides) < 1:
        raise ValueError(f"resize={resize} must be at least 1 pixel.")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def check_crop(crop: int, *, resize: int | tuple[int, int]) -> None:
    """Raise ValueError unless a square of `crop` pixels fits into the resized frame."""
    shortest = resize if isinstance(resize, int) else min(resize)
    if not 1 <= crop <= shortest:
        raise ValueError(f"crop={crop} must be at least 1 and fit into the resized frame, resize={resize}.")
