"""What ``checkpoint=`` names, and what it brings along."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hydra.core.config_store import ConfigStore
from lightning_fabric.utilities.rank_zero import rank_zero_only

from ssl_video.backbones.base import Backbone
from ssl_video.cli.foreign_weights import check_described, load_foreign
from ssl_video.cli.resume import overrides_by_key
from ssl_video.hub.weights import Weights, read_weights
from ssl_video.utils.checkpoint import refuse_other_tensors
from ssl_video.utils.config import check_trusted
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import holds_run, read_record

# The config groups that a checkpoint brings; their option is registered under this name.
FROM_CHECKPOINT = "from_checkpoint"


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
    return [*brought, *_loggers_of(weights.folder, given), *overrides]


def _loggers_of(folder: Path | None, given: Mapping[str, str]) -> list[str]:
    """What the command line of the checkpoint's run said of its loggers: results go there too."""
    if folder is None or "logger" in given or not holds_run(folder):
        return []
    own = read_record(folder)["overrides"]
    return [text for text in own if (key := text.split("=")[0].lstrip("+~")) not in given and is_logger(key)]


def is_logger(key: str) -> bool:
    """Whether a key of the command line chooses or sets a logger."""
    return key == "logger" or key.startswith("logger.")


def _as_path(override: str) -> str:
    """An override whose value Hydra takes as it stands: no list, no interpolation, no sign of its own grammar."""
    key, _, value = override.partition("=")
    # Backslashes count in front of quotes and of interpolations only, and a quote will follow the last character.
    value = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value.strip("'\""))
    value = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", value)
    return f"{key}='{value}'"
