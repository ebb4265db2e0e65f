"""What the transforms share: the two steps of a transform, the layouts, and the checks of their arguments.

A transform works in two steps. `draw` decides everything that is chance, and which part of the frames each clip needs:
that part goes to the reader, which cuts and scales it, on the decoded picture and before its colours are converted
where it can. `finish` turns the pixels that come, `[N, C, T, h, w]` uint8, into what a method takes, float32, by the
values that were drawn; it may run in the worker, or on the device for a whole batch at once. Chance comes from torch's
global generator only, which the data set seeds for each sample; whatever is drawn is drawn once per clip (or per
sample) and is the same for all frames of the clip.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ssl_video.data.readers.base import FramePart, cut_frame


@dataclass(frozen=True)
class Drawn:
    """What a transform drew for the clips of one sample.

    Attributes:
        parts: for each clip given out, what it needs of its frames: one part for all frames, or a list with one for
            each frame, all of the same output size. A transform that gives several crops of each clip lists those of a
            clip together, so there are a multiple of the clips that were asked about.
        values: what `finish` needs, tensors with the clips given out as first dimension; the names and shapes are the
            same for every sample, so that samples can be stacked.
    """

    parts: Sequence[FramePart | Sequence[FramePart]]
    values: Mapping[str, Tensor] = field(default_factory=dict)


class Transform(ABC):
    """A transform of clips in two steps; called directly it does both."""

    @abstractmethod
    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        """Draws for the clips of one sample.

        Args:
            sizes: (height, width) in pixels of each clip's frames, before anything is cut or scaled; V of them.
            num_frames: frames of each clip, T.
        """

    @abstractmethod
    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Makes clips of what came from the reader.

        Args:
            clips: `[N, C, T, h, w]` uint8 on any device, N clips of any number of samples.
            values: what was drawn for them, each `[N, ...]`, on the CPU: by them it is decided there which clips are
                touched, so that nobody waits for a device to say so.

        Returns:
            `[N, C, T, h', w']` float32 on the device of `clips`; several crops of a clip stand together.
        """

    def __call__(self, clips: Tensor) -> Tensor:
        """Turn decoded clips of one sample `[V, T, H, W, 3]` uint8 into `[V', C, T, h, w]` float32."""
        frames = channels_first(clips).permute(0, 1, 3, 4, 2).numpy()
        drawn = self.draw([frames.shape[2:4]] * len(frames), num_frames=frames.shape[1])
        each = len(drawn.parts) // len(frames)
        cut = [_cut_clip(frames[place // each], part) for place, part in enumerate(drawn.parts)]
        return self.finish(as_clips(cut), drawn.values)


def _cut_clip(frames: np.ndarray, part: FramePart | Sequence[FramePart]) -> np.ndarray:
    parts = [part] * len(frames) if isinstance(part, FramePart) else part
    return np.stack([cut_frame(frame, own) for frame, own in zip(frames, parts, strict=True)])


def as_clips(frames: Sequence[np.ndarray]) -> Tensor:
    """Stack clips `[T, h, w, 3]` uint8 into `[N, 3, T, h, w]`, which stay channels-last in memory."""
    return torch.from_numpy(np.stack(frames)).permute(0, 4, 1, 2, 3)


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


def normalized(clips: Tensor, *, mirrored: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Scale clips to [0, 1], mirror some, subtract `mean` and divide by `std`.

    Args:
        clips: `[N, 3, T, h, w]` uint8.
        mirrored: `[N]` bool, on the CPU.
        mean: `[3, 1, 1, 1]`.
        std: `[3, 1, 1, 1]`.

    Returns:
        `[N, 3, T, h, w]` float32, contiguous, on the device of the clips.
    """
    scaled = mirror_(to_unit_range(clips), mirrored)
    return scaled.sub_(moved(mean, clips.device)).div_(moved(std, clips.device))


def to_unit_range(clips: Tensor) -> Tensor:
    """Turn clips `[..., 3, T, h, w]` uint8 into contiguous float32 in [0, 1]."""
    return clips.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def mirror_(clips: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror, in place, those of the clips `[N, C, T, h, w]` left and right that `mirrored` `[N]` names."""
    return change_(clips, where(mirrored), lambda own: own.flip(-1))


def where(chosen: Tensor) -> list[int]:
    """Return the places at which `[N]` bool is true."""
    return [place for place, is_chosen in enumerate(chosen.tolist()) if is_chosen]


def change_(clips: Tensor, places: Sequence[int], work: Callable[[Tensor], Tensor]) -> Tensor:
    """Put what `work` makes of some clips in their places; the others are not touched.

    Args:
        clips: `[N, ...]`, changed in place.
        places: ascending places among the N, a list on the CPU: the device is never asked for them.
        work: takes these clips, `[n, ...]`, and returns what comes in their place; it may change them in place.
    """
    if not places:
        return clips
    first, last = places[0], places[-1]
    if last - first + 1 == len(places):
        own = clips[first : last + 1]
        result = work(own)
        if result is not own:
            own.copy_(result)
        return clips
    index = moved(torch.tensor(places), clips.device)
    return clips.index_copy_(0, index, work(clips.index_select(0, index)))


def moved(values: Tensor, device: torch.device) -> Tensor:
    """Copy a small CPU tensor to a device, without waiting for what the device is at."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    # From memory that is not page-locked the copy would wait for all work before it.
    return values.pin_memory().to(device, non_blocking=True)


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
