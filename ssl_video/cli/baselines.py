"""The backbones of an evaluation: the one asked about, and the rows that stand beside it, on the same clips."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig
from torch import nn

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.weights import load_tensors, read_tensors
from ssl_video.cli.parts import PROVIDED, StartingWeights, TrainSettings, build_backbone
from ssl_video.cli.weights import FROM_CHECKPOINT, load_state
from ssl_video.hub.weights import Weights, read_weights
from ssl_video.utils.checkpoint import file_digest
from ssl_video.utils.config import compose_checked, plain
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import holds_run, last_checkpoint, read_config

SUPERVISED = "ssl_video.methods.supervised.Supervised"
# What decides of a data set which videos are test videos.
SPLIT_KEYS = ("source", "labels", "test_fraction", "split_seed", "test_groups")

# What the command line takes for something else than text.
_NO_WORDS = ("true", "false", "null", "nan", "inf")


def build_backbones(
    config: DictConfig, weights: Weights, *, choices: Mapping[str, str] | None = None
) -> dict[str, Backbone]:
    """The backbone asked about, and its baselines, by name; all of the same class and sizes.

    Args:
        config: of the evaluation.
        weights: what its ``checkpoint=`` named.
        choices: the option that was chosen of each config group, for messages.

    Raises:
        InputError: a baseline lacks its file, or the file is of another network.
    """
    backbones = {}
    if weights.state is not None:
        backbones["checkpoint"] = _with_state(config, weights, source=f"checkpoint={config.checkpoint}")
    if weights.state is None or "random" in config.baselines:
        backbones["random"] = build_backbone(config)
    if "inflated" in config.baselines:
        backbones["inflated"] = _inflated(config)
    if "supervised" in config.baselines:
        backbones["supervised"] = _supervised(config, weights, choices or {})
    return backbones


def baseline_files(config: DictConfig) -> dict[str, str]:
    """What each baseline was made of, by name: a seed, or a file's name and sha256."""
    files = {
        "random": lambda: f"random seed:{config.seed}",
        "inflated": lambda: _label(Path(config.image_weights)),
        "supervised": lambda: read_weights(config.supervised_checkpoint).label,
    }
    return {name: files[name]() for name in config.baselines}


def _label(path: Path) -> str:
    return f"{path.name} sha256:{file_digest(path)}"


def _with_state(config: DictConfig, weights: Weights, *, source: str) -> Backbone:
    backbone = build_backbone(config)
    load_state(backbone, weights, source=source)
    return backbone


# --- inflated: a 2D network's weights, without a video ever seen ------------------------------------------------------


def _inflated(config: DictConfig) -> Backbone:
    """The architecture with image weights inflated in time (Carreira and Zisserman, CVPR 2017)."""
    if config.image_weights is None:
        raise InputError(
            "baselines=[inflated] needs image_weights=PATH, the weights of the 2D network that the backbone inflates "
            "(for backbone=r3d_18, torchvision's resnet18); or leave inflated out."
        )
    backbone = build_backbone(config)
    source = f"image_weights={config.image_weights}"
    loaded = load_tensors(
        backbone, read_tensors(Path(config.image_weights), source=source), source=source, inflate=True
    )
    if not loaded.inflated and any(isinstance(layer, nn.Conv3d) for layer in backbone.modules()):
        raise InputError(
            f"{source} are those of a 3D network already, so nothing of them is inflated; "
            "give those of its 2D network, or evaluate this file by itself: checkpoint=PATH."
        )
    rank_zero_only(print)(f"{source}: {loaded}")
    return backbone


# --- supervised: what labels are worth --------------------------------------------------------------------------------


def _supervised(config: DictConfig, weights: Weights, choices: Mapping[str, str]) -> Backbone:
    """The backbone of a run of ``method=supervised``, which learnt from the labels of the train part."""
    given = config.supervised_checkpoint
    if given is None:
        raise InputError(
            "baselines=[supervised] needs supervised_checkpoint=RUN, a run of method=supervised with this backbone. "
            f"To train one:\n  {training_command(config, weights, choices)}"
        )
    folder = Path(given)
    if not holds_run(folder) or last_checkpoint(folder) is None:
        raise InputError(
            f"supervised_checkpoint={given} must be the folder of a run that has a checkpoint. To train one:\n"
            f"  {training_command(config, weights, choices)}"
        )
    run = read_config(folder)
    if problems := [*_other_run(config, run)]:
        raise InputError(
            f"supervised_checkpoint={given} cannot stand beside this checkpoint:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + f"\nOne that can:\n  {training_command(config, weights, choices)}"
        )
    return _with_state(config, read_weights(given), source=f"supervised_checkpoint={given}")


def _other_run(config: DictConfig, run: Mapping[str, Any]) -> Iterator[str]:
    """Why a run is not the supervised one of this evaluation: method, network, input, or labels of test videos."""
    if run["method"]["_target_"] != SUPERVISED:
        yield f"it is a run of {run['method']['_target_']}, not of method=supervised"
    theirs = {key: value for key, value in run["backbone"].items() if key not in StartingWeights.__annotations__}
    yield from _differences("backbone", theirs, plain(config.backbone))
    # Size and crop may change from training to testing; the scale of the pixels may not.
    scale = [
        {key: node[key] for key in ("mean", "std") if key in node}
        for node in (run["input_transform"], plain(config.input_transform))
    ]
    yield from _differences("input_transform", *scale)
    dataset = plain(config.dataset)
    same_videos = [run["dataset"].get(key) for key in ("name", "root")] == [dataset[key] for key in ("name", "root")]
    if same_videos:
        parts = [{key: node.get(key) for key in SPLIT_KEYS} for node in (run["dataset"], dataset)]
        for difference in _differences("dataset", *parts):
            yield f"{difference}: it may have learnt the labels of test videos"


def _differences(path: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    there, here = _flat(path, theirs), _flat(path, ours)
    for key in sorted({*there, *here}):
        if there.get(key) != here.get(key):
            yield f"{key}={_value(there.get(key))} in it, {_value(here.get(key))} here"


def training_command(config: DictConfig, weights: Weights, choices: Mapping[str, str]) -> str:
    """The command that trains the supervised baseline: the same network, videos, clip length and scale of pixels.

    Args:
        config: of the evaluation.
        weights: what its ``checkpoint=`` named.
        choices: the option that was chosen of each config group.
    """
    # A checkpoint's own node is registered under a name that no command line knows.
    known = {group: name for group, name in choices.items() if name != FROM_CHECKPOINT}
    backbone = known.get("backbone") or (weights.config or {})["name"]
    words = ["method=supervised", f"backbone={backbone}", f"dataset={known.get('dataset', config.dataset.name)}"]
    try:
        preset = plain(compose_checked("train", words, provided=PROVIDED, settings=TrainSettings))
    except InputError:  # a name of the user's own config folder; what to change in it only the user knows
        return shlex.join(["python", "train.py", *words])
    own, image = plain(config), plain(config.input_transform)
    looks = {key: image[key] for key in ("mean", "std") if key in image}
    sizes = {key: image[key] for key in ("resize", "crop") if key in image}
    wanted: dict[str, dict[str, Any]] = {
        "backbone": own["backbone"],
        "dataset": own["dataset"],
        "sampler": {key: own[key] for key in ("num_frames", "frame_stride")},
        "input_transform": looks | sizes,
        "transform": looks | ({"size": sizes["crop"]} if "crop" in sizes else {}),
    }
    changes = [change for path, node in wanted.items() for change in _changes(path, preset[path], node)]
    return shlex.join(["python", "train.py", *words, *changes])


def _changes(path: str, preset: Mapping[str, Any], node: Mapping[str, Any]) -> Iterator[str]:
    """The overrides that turn a preset's node into ``node``."""
    given = _flat(path, preset)
    for key, value in _flat(path, node).items():
        if key not in given or given[key] != value:
            yield f"{'' if key in given else '+'}{key}={_value(value)}"


def _flat(path: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(f"{path}.{key}", value) if isinstance(value, Mapping) else {f"{path}.{key}": value}
    return flat


def _value(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, str):
        is_word = re.fullmatch(r"[A-Za-z_/][\w./+@%-]*", value) and value.lower() not in _NO_WORDS
        return value if is_word else "'" + value.replace("'", "\\'") + "'"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
