"""Files of weights that no run of ours wrote: which backbones fit, and what must be said of their input."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.weights import LoadedWeights, load_tensors, match_tensors
from ssl_video.utils.conf_path import conf_dir
from ssl_video.utils.config import build
from ssl_video.utils.errors import InputError

# What a run of ours writes beside its weights and such a file lacks.
NEEDED = ("backbone", "input_transform", "num_frames", "frame_stride")

# The clips that the published weights of a backbone were trained on, of videos with 30 frames a second.
_TORCHVISION_R3D = "input_transform=torchvision_r3d num_frames=16 frame_stride=2"
_VCOP = "input_transform=vcop num_frames=16 frame_stride=1"
_VIDEOMAE = "input_transform=videomae num_frames=16 frame_stride=4"
PUBLISHED_INPUTS = {
    "r3d_18": _TORCHVISION_R3D,
    "mc3_18": _TORCHVISION_R3D,
    "r2plus1d_18": _TORCHVISION_R3D,
    "s3d": "input_transform=torchvision_s3d num_frames=128 frame_stride=2",
    "mvit_v2_s": "input_transform=torchvision_mvit num_frames=16 frame_stride=4",
    "swin3d_t": "input_transform=torchvision_swin3d num_frames=32 frame_stride=2",
    "slow_r50": "input_transform=kinetics num_frames=8 frame_stride=8",
    "c3d": _VCOP,
    "r3d": _VCOP,
    "r2plus1d": _VCOP,
    "videomae_s": _VIDEOMAE,
    "videomae_b": _VIDEOMAE,
    "videomae_l": _VIDEOMAE,
    "videomae_s_finetuned": _VIDEOMAE,
    "videomae_b_finetuned": _VIDEOMAE,
    "videomae_l_finetuned": _VIDEOMAE,
    "vjepa2_l": "input_transform=vjepa2 num_frames=64 frame_stride=8",
}


def check_described(checkpoint: str, state: Mapping[str, Tensor], given: Collection[str]) -> None:
    """Refuses a file without its network's configuration where the command line doesn't say what that was.

    Args:
        checkpoint: the file.
        state: its tensors.
        given: the keys on the command line.

    Raises:
        InputError: names what is missing, and the backbones of ours that the tensors fit.
    """
    lacking = [key for key in NEEDED if key not in given]
    if not lacking:
        return
    message = (
        f"checkpoint={checkpoint} was not written by a run of ours and does not say what it was trained as; add "
        f"{' '.join(f'{key}=' for key in lacking)}"
    )
    if "backbone" in given:
        raise InputError(f"{message}. Another input than the weights have seen gives worse features without a sign.")
    fitting = fitting_backbones(state)
    if not fitting:
        first = ", ".join(list(state)[:3]) or "none"
        raise InputError(f"{message}. Its tensors (first: {first}) fit none of our backbones.")
    lines = [f"  backbone={name} {PUBLISHED_INPUTS.get(name, '')}".rstrip() for name in fitting]
    raise InputError(
        "\n".join([f"{message}. Of our backbones its tensors fit, each with its published input:", *lines])
    )


def load_foreign(backbone: Backbone, state: Mapping[str, Tensor], *, source: str) -> LoadedWeights:
    """Loads what fits, by ``load_tensors``.

    Raises:
        InputError: too little fits; names the backbones that the tensors do fit.
    """
    try:
        return load_tensors(backbone, state, source=source)
    except InputError as fault:
        fitting = ", ".join(f"backbone={name}" for name in fitting_backbones(state))
        raise InputError(f"{fault} They fit {fitting}." if fitting else str(fault)) from None


def fitting_backbones(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the backbones that the tensors fit, those with the fewest missing first."""
    fitting = []
    for file in sorted((conf_dir() / "backbone").glob("*.yaml")):
        with torch.device("meta"):
            backbone: Backbone = build(OmegaConf.to_container(OmegaConf.load(file)))  # type: ignore[arg-type]
        found = match_tensors(backbone, state)
        if found.is_enough:
            fitting.append((len(found.missing), file.stem))
    return [name for _, name in sorted(fitting)]
