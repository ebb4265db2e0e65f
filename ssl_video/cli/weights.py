"""What ``checkpoint=`` names, and what it brings along."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.weights import state_dict_of
from ssl_video.cli.foreign_weights import check_described, load_foreign
from ssl_video.cli.resume import overrides_by_key
from ssl_video.utils.checkpoint import file_digest, read_plain, read_safetensors, refuse_other_tensors
from ssl_video.utils.config import check_trusted
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import holds_run, last_checkpoint

# The config groups that a checkpoint brings; their option is registered under this name.
FROM_CHECKPOINT = "from_checkpoint"


@dataclass(frozen=True)
class Weights:
    """What ``checkpoint=`` names.

    Attributes:
        state: the backbone's tensors, or all of a file that is not ours; None for random weights.
        config: what rebuilds the backbone and its input (see ``cli.parts.backbone_config``); None for random weights
            and for a file that no run of ours wrote.
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
    """Reads a run's folder, a file of ours, any other file with a state dict, or nothing (``random``).

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
            raise InputError(f"checkpoint={checkpoint} {what}; give a run folder, a file of weights or `random`.")
        path = last
    elif path.parent.name == "checkpoints" and holds_run(path.parent.parent):
        folder = path.parent.parent
    source = f"checkpoint={path}"
    if path.suffix == ".safetensors":
        state, config = read_safetensors(path, source=source)
        return Weights(state, config, None, _label(path), folder)
    content = read_plain(path, source=source)
    if not isinstance(content, dict) or not {"backbone_config", "state_dict", "config"} <= content.keys():
        return Weights(state_dict_of(content, source=source), None, None, _label(path), folder)
    state = {
        name.removeprefix("backbone."): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith("backbone.")
    }
    return Weights(state, content["backbone_config"], content["config"]["dataset"], _label(path), folder)


def load_state(backbone: Backbone, weights: Weights, *, source: str) -> None:
    """Puts a file's tensors into a backbone: of ours all, of others those that fit, and says how many.

    Raises:
        InputError: they are another network's; nothing is loaded then.
    """
    assert weights.state is not None
    if weights.config is None:
        rank_zero_only(print)(f"{source}: {load_foreign(backbone, weights.state, source=source)}")
        return
    refuse_other_tensors(backbone.state_dict(), weights.state, source=source)
    backbone.load_state_dict(weights.state)


def _label(path: Path) -> str:
    return f"{path.name} sha256:{file_digest(path)}"


def complete_overrides(overrides: list[str]) -> list[str]:
    """Adds what the checkpoint brings, as config group options, for the groups that the command line leaves open."""
    given = overrides_by_key(overrides)
    checkpoint = given.get("checkpoint", "random")
    is_path = Path(checkpoint).exists()
    if not is_path and (checkpoint.startswith("[") or "," in checkpoint):
        raise InputError(
            f"checkpoint={checkpoint}: each checkpoint brings its own backbone and input, so a sweep over them is not "
            "one configuration; run evaluate.py once per checkpoint."
        )
    if is_path:
        overrides = [_as_path(text) if text.startswith("checkpoint=") else text for text in overrides]
    weights = read_weights(checkpoint)
    if weights.config is None:
        if weights.state is not None:
            check_described(checkpoint, weights.state, given)
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


def _as_path(override: str) -> str:
    """An override whose value Hydra takes as it stands: no list, no interpolation, no sign of its own grammar."""
    key, _, value = override.partition("=")
    # Backslashes count in front of quotes and of interpolations only, and a quote will follow the last character.
    value = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value.strip("'\""))
    value = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", value)
    return f"{key}='{value}'"
