"""Starting weights: a backbone takes its tensors from a run of ours, from published weights, or from a 2D network's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.utils.errors import InputError

# What becomes of a kernel [out,in,h,w] where the backbone has [out,in,t,h,w]; True is "centre".
Inflate = Literal[True, False, "centre", "mean"]

# Share of the backbone's tensors that a file must have: one of another network has hardly any.
MIN_SHARE = 0.95
# Where training scripts put the state dict beside optimizer and settings.
_NESTED = ("state_dict", "model_state", "model")


@dataclass(frozen=True)
class LoadedWeights:
    """What a backbone took from a file.

    Attributes:
        matched: tensors taken.
        total: tensors that the backbone has, batch norm's counters apart.
        inflated: kernels among them that were 2D in the file.
        missing: the backbone's tensors that keep their random start: not in the file, or of another shape.
        unexpected: tensors of the file that the backbone has no place for.
    """

    matched: int
    total: int
    inflated: int
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        """One line of counts; the first missing ones by name."""
        first = f" ({', '.join(self.missing[:3])}{', ...' if len(self.missing) > 3 else ''})" if self.missing else ""
        inflated = f", {self.inflated} of them inflated" if self.inflated else ""
        return (
            f"{self.matched} of {self.total} tensors loaded{inflated}; {len(self.missing)} missing{first}, "
            f"{len(self.unexpected)} unexpected"
        )


def load_weights(backbone: Backbone, path: Path, *, inflate: Inflate = False) -> LoadedWeights:
    """Loads the tensors of a file whose names are the backbone's, or its `other_names`, behind any one prefix.

    A 2D kernel becomes 3D so that a clip of equal frames gives the 2D network's features: ``centre`` puts it into the
    middle of a kernel that is otherwise zero, which holds at every frame. ``mean`` repeats it in time and divides by
    the number of repeats (Carreira and Zisserman, CVPR 2017), which holds only where the kernel sees no padding: not
    at a clip's first and last frames. Kernels of an even length have no middle and are always spread.

    Args:
        backbone: what to load into.
        path: a .safetensors, or a .pt or .pth with a state dict, also under ``state_dict``, ``model_state`` or
            ``model``. Nothing in it is executed.
        inflate: False, ``centre`` (or True), ``mean``.

    Raises:
        InputError: no such file, not tensors alone, or too few of them are the backbone's; nothing is loaded then.
    """
    given = read_tensors(path)
    own: dict[str, Tensor] = {name: t for name, t in backbone.state_dict().items() if isinstance(t, Tensor)}
    pairs = _pair_names(backbone, list(own), list(given))
    fitted = {name: _fit(given[source], own[name].shape, inflate) for name, source in pairs.items()}
    taken = {name: tensor for name, tensor in fitted.items() if tensor is not None}
    # Files of before 2018 lack the counters of batch norm.
    counted = [name for name in own if not name.endswith("num_batches_tracked")]
    used = {pairs[name] for name in taken}
    result = LoadedWeights(
        matched=sum(name in taken for name in counted),
        total=len(counted),
        inflated=sum(given[pairs[name]].ndim < tensor.ndim for name, tensor in taken.items()),
        missing=[name for name in counted if name not in taken],
        unexpected=[name for name in given if name not in used],
    )
    if result.matched < MIN_SHARE * result.total:
        flat = any(name not in taken and given[source].ndim < own[name].ndim for name, source in pairs.items())
        raise InputError(_refusal(backbone, path, result, needs_inflating=flat and not inflate))
    backbone.load_state_dict({**own, **taken})
    return result


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, or of the state dict in a .pt or .pth, on the CPU and by name.

    Raises:
        InputError: no such file, or one that does not hold tensors alone.
    """
    if not path.is_file():
        what = "is a folder; of a run, give its checkpoints/backbone.safetensors" if path.is_dir() else "does not exist"
        raise InputError(f"backbone.weights={path} {what}; it must be a .safetensors, a .pt or a .pth file.")
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as fault:  # a damaged file can raise nearly anything
        reason = (str(fault).splitlines() or [""])[0]
        raise InputError(
            f"backbone.weights={path} must hold tensors and plain data alone and cannot be read so "
            f"({type(fault).__name__}: {reason}): it is damaged, or loading it could run code. Where you trust it, "
            "save its state dict by torch.save or as .safetensors."
        ) from None
    while isinstance(content, Mapping) and (inner := [content[key] for key in _NESTED if key in content]):
        content = inner[0]
    if not isinstance(content, Mapping):
        raise InputError(
            f"backbone.weights={path} holds a {type(content).__name__}, but it must hold a state dict, tensors by "
            "name; save that of the network (network.state_dict())."
        )
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _pair_names(backbone: Backbone, own: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """The backbone's names with those of the file: of all namings and prefixes, the pair that finds the most.

    Of equals the first in the file counts: the backbone of a MoCo checkpoint stands before its momentum copy.
    """
    shared = _shared_prefix(own)
    namings = [{name: name for name in own}, {name.removeprefix(shared): name for name in own}]
    for other in zip(*(backbone.other_names(name) for name in own), strict=True):
        namings.append(dict(zip(other, own, strict=True)))
    present = set(given)
    best: dict[str, str] = {}
    for naming in namings:
        for prefix in _prefixes(naming, given):
            found = {name: prefix + alias for alias, name in naming.items() if prefix + alias in present}
            if len(found) > len(best):
                best = found
    return best


def _shared_prefix(names: Sequence[str]) -> str:
    """The modules that all names begin with, as ``"layers."``."""
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, parts)]
    return "".join(f"{part}." for part in shared)


def _prefixes(naming: Mapping[str, str], given: Sequence[str]) -> list[str]:
    """What stands before a known name in the file, in the file's order."""
    found: dict[str, None] = {}
    for name in given:
        parts = name.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in naming:
                found["".join(f"{part}." for part in parts[:cut])] = None
    return list(found)


def _fit(tensor: Tensor, shape: Sequence[int], inflate: Inflate) -> Tensor | None:
    """The tensor as the backbone has it, None where the shapes don't allow it."""
    if tensor.shape == shape:
        return tensor
    if not inflate or tensor.ndim != 4 or len(shape) != 5 or tensor.shape != (*shape[:2], *shape[3:]):
        return None
    time = shape[2]
    if inflate == "mean" or time % 2 == 0:
        return tensor.unsqueeze(2).repeat(1, 1, time, 1, 1) / time
    inflated = tensor.new_zeros(shape)
    inflated[:, :, time // 2] = tensor
    return inflated


def _refusal(backbone: Backbone, path: Path, result: LoadedWeights, *, needs_inflating: bool) -> str:
    way_out = (
        "they are 2D: add backbone.inflate=true"
        if needs_inflating
        else "choose the backbone= that they were trained as, with its sizes"
    )
    return (
        f"backbone.weights={path} has {result.matched} of the {result.total} tensors of "
        f"{type(backbone).__name__}, by name and shape, and must have {MIN_SHARE:.0%} of them (missing, for example: "
        f"{', '.join(result.missing[:3])}; in the file and without a place: {', '.join(result.unexpected[:3])}); "
        f"{way_out}."
    )
