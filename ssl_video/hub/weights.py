"""What a checkpoint is to whoever wants its backbone: the tensors, and the configuration that rebuilds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_video.backbones.weights import state_dict_of
from ssl_video.utils.checkpoint import file_digest, read_plain, read_safetensors
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import holds_run, last_checkpoint

# The file of an exported folder that holds tensors and configuration.
BACKBONE_FILE = "backbone.safetensors"


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
        step: optimizer steps before it was written, where the file says so.
    """

    state: dict[str, Tensor] | None
    config: dict[str, Any] | None
    dataset: dict[str, Any] | None
    label: str
    folder: Path | None
    step: int | None = None


def read_weights(checkpoint: str) -> Weights:
    """Reads a run's folder, an exported one, a file of ours, any other with a state dict, or nothing (``random``).

    Raises:
        InputError: it is missing, truncated, or holds anything but plain data.
    """
    if checkpoint == "random":
        return Weights(None, None, None, "random", None)
    path = Path(checkpoint)
    folder = path if path.is_dir() else None
    if folder is not None and not holds_run(folder) and (folder / BACKBONE_FILE).is_file():
        path, folder = folder / BACKBONE_FILE, None  # what `ssl-video export` wrote
    elif folder is not None:
        last = last_checkpoint(folder)
        if last is None:
            what = "has no checkpoint yet" if holds_run(folder) else "is a folder, but neither of a run nor an export"
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
    step = int(content["global_step"])
    return Weights(state, content["backbone_config"], content["config"]["dataset"], _label(path), folder, step)


def _label(path: Path) -> str:
    return f"{path.name} sha256:{file_digest(path)}"
