"""A backbone with all that is needed to use it: its transform, its clips, and how it reads videos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.memory_format import lay_out
from ssl_video.data.manifest import Segment
from ssl_video.data.readers.base import ReaderFactory
from ssl_video.data.samplers.uniform_clips import UniformClips
from ssl_video.data.transforms.base import Transform
from ssl_video.hub.source import find_weights
from ssl_video.hub.weights import Weights, read_weights
from ssl_video.utils.checkpoint import refuse_other_tensors
from ssl_video.utils.config import build, check_trusted, locate
from ssl_video.utils.errors import InputError


class PretrainedBackbone(nn.Module):
    """A backbone and its input, as a run left them.

    Called, it maps clips ``[N, C, T, H, W]`` to features ``[N, D]``, like any module; gradients are kept, so use
    ``torch.inference_mode()`` where none are wanted.

    Attributes:
        backbone: the network, in eval mode when it was loaded.
        num_frames: frames of a clip, T.
        frame_stride: distance in frames between neighbouring frames of a clip.
        label: name and sha256 of the file that it was loaded from.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        transform: Transform,
        open_reader: ReaderFactory,
        num_frames: int,
        frame_stride: int,
        label: str = "",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_frames = num_frames
        self.frame_stride = frame_stride
        self.label = label
        self._transform = transform
        self._open_reader = open_reader

    @property
    def feature_dim(self) -> int:
        """D, the length of a feature vector."""
        return self.backbone.feature_dim

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips ``[N, C, T, H, W]`` to features ``[N, D]``."""
        features: Tensor = self.backbone(clips)
        return features

    def transform(self, frames: Tensor | NDArray[np.uint8]) -> Tensor:
        """Make of decoded frames what the backbone was trained on: resized, cropped, normalised.

        Args:
            frames: uint8 RGB of one clip ``[T, H, W, 3]`` or of several ``[N, T, H, W, 3]``; ``num_frames`` of them,
                ``frame_stride`` apart, are what the backbone has learnt from.

        Returns:
            ``[N, C, T, h, w]`` float32 on the backbone's device.

        Raises:
            ValueError: another shape or type.
        """
        clips = torch.as_tensor(frames)
        if clips.ndim == 4:
            clips = clips[None]
        return self._transform(clips.cpu()).to(next(self.parameters()).device)

    def clips(self, path: str | Path, *, num_clips: int = 5) -> Tensor:
        """Clips ``[num_clips, C, T, h, w]`` of a video, evenly spread over it, as `ssl-video embed` takes them.

        Raises:
            UnreadableVideo: the file has no video that can be read.
        """
        reader = self._open_reader(Path(path))
        try:
            sampler = UniformClips(num_views=num_clips, num_frames=self.num_frames, frame_stride=self.frame_stride)
            name = str(path)
            whole = Segment(0, name, name, name, 0, reader.num_frames, reader.fps, width=0, height=0)
            indices = sampler(whole, np.random.default_rng(0)).indices
            # One after the other, as whole frames of all clips may be large.
            return torch.cat([self.transform(reader.read(own)) for own in indices])
        finally:
            reader.close()

    @torch.inference_mode()
    def embed_file(self, path: str | Path, *, num_clips: int = 5) -> Tensor:
        """Features ``[D]`` of a video on the CPU, the mean over its clips: what `ssl-video embed` writes.

        Raises:
            UnreadableVideo: the file has no video that can be read.
        """
        features = self(self.clips(path, num_clips=num_clips)).float().cpu()
        mean: Tensor = features.double().mean(dim=0).float()
        return mean


def load(source: str | Path, *, trusted_packages: Sequence[str] = ()) -> PretrainedBackbone:
    """Loads a backbone with its transform.

    Args:
        source: a run's folder, a folder that `ssl-video export` wrote, a `.ckpt` or `.safetensors` of a run, or
            ``owner/name`` or ``owner/name@revision`` on the Hugging Face Hub.
        trusted_packages: packages beside ssl_video whose classes the file's configuration may build.

    Returns:
        The backbone on the CPU, in eval mode.

    Raises:
        InputError: there is no such thing, it is damaged, or it is not ours.
    """
    return rebuild(read_weights(str(find_weights(source))), source=str(source), trusted_packages=trusted_packages)


def rebuild(weights: Weights, *, source: str, trusted_packages: Sequence[str] = ()) -> PretrainedBackbone:
    """Builds what a file's configuration says, and puts its weights in.

    Args:
        weights: what was read.
        source: how the user called it, for messages.
        trusted_packages: see `load`.

    Raises:
        InputError: the file is not ours, or its configuration builds something else.
    """
    config = weights.config
    if config is None or weights.state is None:
        raise InputError(
            f"{source} has no configuration beside its weights, so nothing says which backbone and input they belong "
            "to; give a run's folder or a file that a run or `ssl-video export` wrote. Other files are measured by "
            "evaluate.py checkpoint=FILE backbone=NAME."
        )
    backbone = _build(config, "backbone", Backbone, source=source, trusted_packages=trusted_packages)
    refuse_other_tensors(backbone.state_dict(), weights.state, source=source)
    backbone.load_state_dict(weights.state)
    lay_out(backbone, "channels_last")  # as in evaluation: on a CPU a third to a half less time
    reader: Any = _build(config, "reader", object, source=source, trusted_packages=trusted_packages)
    model = PretrainedBackbone(
        backbone,
        transform=_build(config, "input_transform", Transform, source=source, trusted_packages=trusted_packages),
        open_reader=partial(reader.func, *reader.args, **reader.keywords),  # without what Hydra checks at each call
        num_frames=_number(config, "num_frames", source=source),
        frame_stride=_number(config, "frame_stride", source=source),
        label=weights.label,
    )
    return model.eval()


def _build(config: dict[str, Any], key: str, kind: type, *, source: str, trusted_packages: Sequence[str]) -> Any:
    """What a node of a file's configuration says, if it is of the kind that belongs there and of a trusted package."""
    node = config.get(key)
    if not isinstance(node, dict) or "_target_" not in node:
        raise InputError(f"{source} has no {key} in its configuration; it was not written by a run of ours.")
    check_trusted({key: node}, packages=trusted_packages)
    made: Any = locate(str(node["_target_"]))
    is_reader = key == "reader"
    fits = hasattr(made, "read_cuts") if is_reader else issubclass(made, kind)
    if not fits or bool(node.get("_partial_")) != is_reader:
        raise InputError(
            f"{source} asks for {key}: {node['_target_']}, which is no {key}; it was not written by a run of ours."
        )
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and then replaced
        return build(node)


def _number(config: dict[str, Any], key: str, *, source: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{source} says {key}={value!r}, which must be a number of at least 1; it is not ours.")
    return value
