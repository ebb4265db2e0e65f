"""From a protocol's ``ClipSpec`` to the sampler and transform that show it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ssl_video.data.dataset import ClipTransform, View
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.data.transforms.corruptions import corrupt
from ssl_video.evaluation.clips import ClipSpec
from ssl_video.utils.errors import InputError


@dataclass(frozen=True)
class Corrupted:
    """An input transform behind a corruption of the decoded frames."""

    transform: ClipTransform
    kind: str
    severity: int

    def __call__(self, clips: Tensor) -> Tensor:
        """uint8 ``[V, T, H, W, 3]`` to float32 ``[V, C, T, h, w]``, all chance from torch's global generator."""
        return self.transform(corrupt(clips, kind=self.kind, severity=self.severity))

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """That of the transform: what is spoilt is what the backbone would see, and not more."""
        return self.transform.decode_size(height, width)


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
