"""Starting weights: a backbone takes its tensors from a run of ours, from published weights, or from a 2D network's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.utils.checkpoint import read_plain, read_safetensors
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
        misshapen: those of the missing that the file has, of another shape.
    """

    matched: int
    total: int
    inflated: int
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    @property
    def is_enough(self) -> bool:
        """Whether they are the backbone's weights: of a relative's all names may fit and hardly any shape differ."""
        return self.matched >= MIN_SHARE * self.total and not self.misshapen

    def __str__(self) -> str:
        """One line of counts; the first ones of those without a partner by name."""
        inflated = f", {self.inflated} of them inflated" if self.inflated else ""
        missing, unexpected = (f" ({_first(names)})" if names else "" for names in (self.missing, self.unexpected))
        return (
            f"{self.matched} of {self.total} tensors loaded{inflated}; {len(self.missing)} missing{missing}, "
            f"{len(self.unexpected)} unexpected{unexpected}"
        )


def load_weights(backbone: Backbone, path: Path, *, inflate: Inflate = False) -> LoadedWeights:
    """Loads the tensors of a file; see ``read_tensors`` and ``load_tensors``, whose errors it raises."""
    source = f"backbone.weights={path}"
    return load_tensors(backbone, read_tensors(path, source=source), source=source, inflate=inflate)


def load_tensors(
    backbone: Backbone, given: Mapping[str, Tensor], *, source: str, inflate: Inflate = False
) -> LoadedWeights:
    """Loads tensors whose names are the backbone's, or its `other_names`, behind any one prefix.

    A 2D kernel becomes 3D so that a clip of equal frames gives the 2D network's features: ``centre`` puts it into the
    middle of a kernel that is otherwise zero, which holds at every frame. ``mean`` repeats it in time and divides by
    the number of repeats (Carreira and Zisserman, CVPR 2017), which holds only where the kernel sees no padding: not
    at a clip's first and last frames. Kernels of an even length have no middle and are always spread.

    Args:
        backbone: what to load into.
        given: the tensors of a file.
        source: how the command line calls the file.
        inflate: False, ``centre`` (or True), ``mean``.

    Raises:
        InputError: too few of them are the backbone's; nothing is loaded then.
    """
    result, taken = _match(backbone, given, inflate)
    if not result.is_enough:
        raise InputError(_refusal(backbone, given, result, source=source, inflate=inflate))
    backbone.load_state_dict({**backbone.state_dict(), **taken})
    return result


def match_tensors(backbone: Backbone, given: Mapping[str, Tensor]) -> LoadedWeights:
    """What ``load_tensors`` would load, without loading it; the backbone may be on the meta device."""
    return _match(backbone, given, False)[0]


def read_tensors(path: Path, *, source: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; nothing in it is executed.

    Args:
        path: a .safetensors, or what ``torch.save`` wrote, under any name; see ``state_dict_of``.
        source: how the command line calls the file.

    Raises:
        InputError: no such file, a damaged one, or one that does not hold a state dict of tensors and plain data.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path, source=source)[0]
    return state_dict_of(read_plain(path, source=source), source=source)


def state_dict_of(content: Any, *, source: str) -> dict[str, Tensor]:
    """The tensors of a state dict, also of one under ``state_dict``, ``model_state`` or ``model``.

    Raises:
        InputError: there is no state dict.
    """
    while isinstance(content, Mapping) and (inner := [content[key] for key in _NESTED if key in content]):
        content = inner[0]
    if not isinstance(content, Mapping):
        raise InputError(
            f"{source} holds a {type(content).__name__}, but it must hold a state dict, tensors by name; save that of "
            "the network (network.state_dict())."
        )
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _match(
    backbone: Backbone, given: Mapping[str, Tensor], inflate: Inflate
) -> tuple[LoadedWeights, dict[str, Tensor]]:
    """Counts, and the tensors to load by the backbone's names."""
    own: dict[str, Tensor] = {name: t for name, t in backbone.state_dict().items() if isinstance(t, Tensor)}
    pairs = _pair_names(backbone, list(own), list(given))
    fitted = {name: _fit(given[source], own[name].shape, inflate) for name, source in pairs.items()}
    taken = {name: tensor for name, tensor in fitted.items() if tensor is not None}
    # Files of before 2018 lack the counters of batch norm.
    counted = [name for name in own if not name.endswith("num_batches_tracked")]
    missing = [name for name in counted if name not in taken]
    used = {pairs[name] for name in taken}
    result = LoadedWeights(
        matched=len(counted) - len(missing),
        total=len(counted),
        inflated=sum(given[pairs[name]].ndim < tensor.ndim for name, tensor in taken.items()),
        missing=missing,
        unexpected=[name for name in given if name not in used],
        misshapen=[name for name in missing if name in pairs],
    )
    return result, taken


def _refusal(
    backbone: Backbone, given: Mapping[str, Tensor], result: LoadedWeights, *, source: str, inflate: Inflate
) -> str:
    """What a file lacks, and what to do about it."""
    way_out = "choose the backbone= that they were trained as, with its sizes"
    if not inflate and result.misshapen:
        inflated = _match(backbone, given, True)[0]
        way_out = (
            "they are 2D: add backbone.inflate=true (evaluate.py: baselines=[inflated])"
            if inflated.is_enough
            else way_out
        )
    misshapen = f"; of another shape: {_first(result.misshapen)}" if result.misshapen else ""
    return (
        f"{source} has {result.matched} of the {result.total} tensors of {type(backbone).__name__}, by name and shape, "
        f"and must have {MIN_SHARE:.0%} of them and none of another shape (missing: {_first(result.missing)}{misshapen}"
        f"; in the file and without a place: {_first(result.unexpected)}); {way_out}."
    )


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


def _first(names: Sequence[str]) -> str:
    """The first three of some names."""
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else "none"
