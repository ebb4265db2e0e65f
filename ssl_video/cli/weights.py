"""What ``checkpoint=`` names, what it brings along, and the backbones that are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.cli.parts import build_backbone
from ssl_video.cli.resume import overrides_by_key
from ssl_video.utils.checkpoint import file_digest, read_backbone, read_checkpoint, refuse_other_tensors
from ssl_video.utils.config import check_trusted
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import holds_run, last_checkpoint

# The config groups that a checkpoint brings; their option is registered under this name.
FROM_CHECKPOINT = "from_checkpoint"


@dataclass(frozen=True)
class Weights:
    """What ``checkpoint=`` names.

    Attributes:
        state: the backbone's tensors; None for random weights.
        config: what rebuilds the backbone and its input (see ``cli.parts.backbone_config``); None for random weights.
        dataset: the data set's node of the run's configuration, where there is one.
        label: how the file is named in results.
        folder: the run's folder, where there is one.
    """

    state: dict[str, Tensor] | None
    config: dict[str, Any] | None
    dataset: dict[str, Any] | None
    label: str
    folder: Path | None


def read_weights(checkpoint: str) -> Weights:
    """Reads a run's folder, a .ckpt, a .safetensors, or nothing (``random``).

    Raises:
        InputError: it is missing, truncated, or holds anything but plain data.
    """
    if checkpoint == "random":
        return Weights(None, None, None, "random", None)
    path = Path(checkpoint)
    folder = path if path.is_dir() else None
    if folder is not None:
        last = last_checkpoint(folder)
        if last is None:
            what = "has no checkpoint yet" if holds_run(folder) else "is a folder, but not that of a run"
            raise InputError(f"checkpoint={checkpoint} {what}; give a run folder, a .ckpt, a .safetensors or `random`.")
        path = last
    elif path.parent.name == "checkpoints" and holds_run(path.parent.parent):
        folder = path.parent.parent
    if path.suffix == ".safetensors":
        state, config = read_backbone(path)
        return Weights(state, config, None, _label(path), folder)
    content = read_checkpoint(path)
    if "backbone_config" not in content or "state_dict" not in content:
        raise InputError(f"checkpoint={checkpoint} was not written by a run of ours: it has no backbone_config.")
    state = {
        name.removeprefix("backbone."): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith("backbone.")
    }
    return Weights(state, content["backbone_config"], content["config"]["dataset"], _label(path), folder)


def _label(path: Path) -> str:
    return f"{path.name} sha256:{file_digest(path)}"


def complete_overrides(overrides: list[str]) -> list[str]:
    """Adds what the checkpoint brings, as config group options, for the groups that the command line leaves open."""
    given = overrides_by_key(overrides)
    checkpoint = given.get("checkpoint", "random")
    if checkpoint.startswith("[") or "," in checkpoint:
        raise InputError(
            f"checkpoint={checkpoint}: each checkpoint brings its own backbone and input, so a sweep over them is not "
            "one configuration; run evaluate.py once per checkpoint."
        )
    weights = read_weights(checkpoint)
    if weights.config is None:
        return overrides
    # Before anything is composed: checking a target imports it.
    trusted = [name for name in given.get("trusted_packages", "").strip("[]").split(",") if name]
    check_trusted({**weights.config, "dataset": weights.dataset}, packages=trusted)
    nodes = {
        "backbone": weights.config["backbone"],
        "input_transform": weights.config["input_transform"],
        "dataset": weights.dataset,
        # Another data set may need another reader, such as one of images, and says so itself.
        "reader": weights.config["reader"] if "dataset" not in given else None,
    }
    brought = []
    for group, node in nodes.items():
        if node is not None and group not in given:
            ConfigStore.instance().store(group=group, name=FROM_CHECKPOINT, node=node)
            brought.append(f"{group}={FROM_CHECKPOINT}")
    for key in ("num_frames", "frame_stride", "seed", "cache_dir"):
        if key not in given and weights.config[key] is not None:
            brought.append(f"{key}={weights.config[key]}")
    return [*brought, *overrides]


def build_backbones(config: DictConfig, weights: Weights) -> dict[str, Backbone]:
    """The backbone asked about, and its baselines, by name."""
    backbones = {}
    if weights.state is not None:
        assert weights.config is not None
        backbones["checkpoint"] = build_backbone(config)
        _load(backbones["checkpoint"], weights.state, name=config.checkpoint)
    if weights.state is None or "random" in config.baselines:
        backbones["random"] = build_backbone(config)
    return backbones


def _load(backbone: Backbone, state: dict[str, Tensor], *, name: str) -> None:
    refuse_other_tensors(backbone.state_dict(), state, source=f"checkpoint={name}")
    backbone.load_state_dict(state)
