"""From a protocol's ``ClipSpec`` to the sampler and transform that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ssl_video.data.dataset import View
from ssl_video.data.readers.base import FramePart
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.data.transforms.base import Drawn, Transform
from ssl_video.data.transforms.corruptions import corrupt
from ssl_video.evaluation.clips import ClipSpec
from ssl_video.utils.errors import InputError


class Corrupted(Transform):
    """An input transform behind a corruption of the frames, at the size to which the transform scales them.

    Args:
        transform: the input transform; what is spoilt is what the backbone would see, and not more.
        kind: of corruption.
        severity: 1 to 5.
    """

    def __init__(self, transform: Transform, kind: str, severity: int) -> None:
        self.transform = transform
        self.kind = kind
        self.severity = severity

    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        """Ask for whole frames at the transform's size."""
        parts = self.transform.draw(sizes, num_frames=num_frames).parts
        each = len(parts) // len(sizes)
        return Drawn([FramePart(size=_size_of_all(part)) for part in parts[::each]])

    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Spoil the frames, then do what the transform does; chance is torch's global generator's."""
        return self.transform(corrupt(clips.permute(0, 2, 3, 4, 1), kind=self.kind, severity=self.severity))


def _size_of_all(part: FramePart | Sequence[FramePart]) -> tuple[int, int] | None:
    return part.size if isinstance(part, FramePart) else part[0].size


def resolve(spec: ClipSpec, *, num_frames: int) -> ClipSpec:
    """The spec with the clip length that it leaves to the backbone."""
    return replace(spec, num_frames=spec.num_frames or num_frames)


def make_view(spec: ClipSpec, *, frame_stride: int, transform: Any) -> View:
    """What shows a video as a resolved spec says, but for the order of its frames.

    Args:
        spec: with its number of frames.
        frame_stride: of the backbone, which ``stride_factor`` multiplies.
        transform: the input transform, with one crop.

    Raises:
        InputError: several crops of a transform that gives one.
    """
    assert spec.num_frames is not None
    sampler = UniformClips(
        num_views=spec.num_clips, num_frames=spec.num_frames, frame_stride=frame_stride * spec.stride_factor
    )
    if spec.crops != "centre":
        if not hasattr(transform, "with_crops"):
            raise InputError(
                f"crops={spec.crops} of each clip cannot be had of {type(transform).__name__}, which gives one; use "
                "crops=centre or another input_transform."
            )
        transform = transform.with_crops(spec.crops)
    if spec.corruption is not None:
        transform = Corrupted(transform, spec.corruption, spec.severity)
    return View(sampler, transform)
