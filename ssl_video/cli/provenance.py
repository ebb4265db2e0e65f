"""What features follow from: the name under which they are kept says all of it, so nothing stale is ever taken."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from ssl_video.backbones.base import Backbone
from ssl_video.cli.parts import reader_node
from ssl_video.data.manifest import Manifest, frame_bounds
from ssl_video.evaluation.cache import FORMAT_VERSION, files_digest, module_digest
from ssl_video.evaluation.extract import FeatureKey
from ssl_video.utils.config import locate, plain

# Libraries that decide of a pixel or of a feature.
LIBRARIES = ("torch", "torchvision", "decord2", "av", "torchcodec", "numpy", "pillow")
# Code that does, by folder or file of the package.
SOURCES = ("backbones", "modules", "data", "evaluation/extract.py", "cli/views.py")
# What of a manifest's row does. Not its labels: other labels of the same videos leave their features as they are.
VIDEO_COLUMNS = (
    *("path", "bytes", "modified_ns", "start_seconds", "end_seconds", "num_frames", "fps", "width", "height"),
)
ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Provenance:
    """What the features of some videos follow from.

    Attributes:
        common: to all backbones and clips, as plain values.
        backbones: digest by name.
        seed: of shuffled frames and of corruptions.
    """

    common: dict[str, Any]
    backbones: dict[str, str]
    seed: int

    def of(self, key: FeatureKey) -> dict[str, Any]:
        """All of it for one backbone and resolved clips."""
        name, spec = key
        has_chance = spec.order == "shuffled" or spec.corruption is not None
        return {
            **self.common,
            "backbone": self.backbones[name],
            "clips": asdict(spec),
            "seed": self.seed if has_chance else None,
        }


def trace(
    config: DictConfig, backbones: Mapping[str, Backbone], *, videos: str, device: torch.device, seed: int
) -> Provenance:
    """What an extraction with this configuration follows from.

    Args:
        config: of the evaluation.
        backbones: by name.
        videos: digest of the videos.
        device: that computes.
        seed: of shuffled frames and of corruptions.
    """
    common = {
        "format": FORMAT_VERSION,
        "videos": videos,
        "frame_stride": config.frame_stride,
        "input_transform": plain(config.input_transform),
        "reader": reader_node(config),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "code": files_digest(sorted({*_own_sources(), *_foreign_sources(config, backbones)})),
        "device": _describe(device),
    }
    return Provenance(common, {name: module_digest(backbone) for name, backbone in backbones.items()}, seed)


@dataclass(frozen=True)
class Videos:
    """Some rows of a manifest.

    Attributes:
        digest: sha256 of all that decides of their pixels.
        lengths: ``[N]`` frames of each.
    """

    digest: str
    lengths: NDArray[np.int64]


def look_at(manifest: Manifest, rows: NDArray[np.int64]) -> Videos:
    """What features need to know of the videos beside their pixels; some rows at a time, as there may be a million."""
    digest = hashlib.sha256(str(manifest.root.resolve()).encode())
    lengths = np.empty(len(rows), dtype=np.int64)
    table = manifest.table.select(VIDEO_COLUMNS)
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        some = rows[start : start + ROWS_AT_A_TIME]
        for place, (row, values) in enumerate(zip(some.tolist(), table.take(some).to_pylist(), strict=True), start):
            digest.update(json.dumps([row, *values.values()]).encode())
            first, behind = frame_bounds(values)
            lengths[place] = behind - first
    return Videos(digest.hexdigest(), lengths)


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _own_sources() -> Iterator[Path]:
    package = Path(__file__).resolve().parents[1]
    for name in SOURCES:
        path = package / name
        yield from path.rglob("*.py") if path.is_dir() else [path]


def _foreign_sources(config: DictConfig, backbones: Mapping[str, Backbone]) -> Iterator[Path]:
    """Files of the user's own classes, which change more often than their version."""
    classes: set[Any] = {type(module) for backbone in backbones.values() for module in backbone.modules()}
    classes |= {locate(config[node]._target_) for node in ("input_transform", "reader")}
    for one in classes:
        if one.__module__.split(".")[0] in ("ssl_video", "torch", "torchvision"):
            continue
        try:
            source = inspect.getsourcefile(one)
        except TypeError:  # of no file
            continue
        if source is not None and Path(source).is_file():
            yield Path(source).resolve()


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {torch.get_float32_matmul_precision()}"
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
