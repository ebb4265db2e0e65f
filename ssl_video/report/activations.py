"""Which clips fire a unit most, and which part of each clip makes it fire: what shuffle-and-learn and OPN showed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.utils.errors import InputError

# The name under which the map before pooling is asked for; all other names are those of `named_modules`.
FEATURE_MAP = "feature_map"

Box = tuple[int, int, int, int, int, int]
"""First and last + 1 frame, row and column of a part of a clip: t0, t1, y0, y1, x0, x1."""

Load = Callable[[Sequence[int] | None], Iterable[ClipBatch]]
"""Gives the clips of some rows of the manifest, or of all; the same clips every time."""


@dataclass(frozen=True)
class ActiveClip:
    """A clip that fires a unit.

    Attributes:
        row: of the manifest.
        value: the unit's largest activation over the clip.
        position: where in the layer's map it is: frame, row, column.
        box: the receptive field of that position; None where no pixel moves the activation.
        clip: ``[C, T, H, W]`` as the network gets it.
    """

    row: int
    value: float
    position: tuple[int, int, int]
    box: Box | None
    clip: Tensor


@dataclass(frozen=True)
class Unit:
    """One channel of a layer.

    Attributes:
        number: of the channel.
        mean: of its largest activation per video, over the videos.
        clips: of as many videos, the strongest first.
    """

    number: int
    mean: float
    clips: list[ActiveClip]


def top_activations(
    backbone: Backbone, load: Load, layers: Sequence[str], *, num_units: int = 4, top: int = 5
) -> dict[str, list[Unit]]:
    """For each layer the units that single out a few videos most, each with those videos' clips.

    A unit is chosen by how far the mean of its ``top`` strongest videos lies above that of all videos, in standard
    deviations over the videos. The clips are read twice: once for every activation, then those that are shown.

    Args:
        backbone: put into eval mode.
        load: gives the clips.
        layers: names of modules with maps, or ``feature_map``.
        num_units: to show of each layer.
        top: videos per unit.

    Raises:
        InputError: a layer that is not there, or whose output is no map of places.
    """
    backbone.eval()
    maxima, rows = _unit_maxima(backbone, load(None), layers)
    if not len(rows):
        return {}
    chosen = {layer: _choose(values, num_units=num_units, top=top) for layer, values in maxima.items()}
    needed = sorted({int(rows[place]) for units in chosen.values() for _, _, places in units for place in places})
    clips = {
        row: list(batch.clips[place])
        for batch in load(needed)
        for place, row in enumerate(batch.rows.tolist())
        if row in needed
    }
    return {
        layer: [
            Unit(
                number,
                mean,
                [_strongest(backbone, int(rows[p]), clips[int(rows[p])], layer=layer, unit=number) for p in places],
            )
            for number, mean, places in units
        ]
        for layer, units in chosen.items()
    }


def default_layers(backbone: Backbone, clip: Tensor) -> list[str]:
    """The map before pooling, and the convolution half-way through the network.

    Args:
        backbone: the network.
        clip: ``[1, C, T, H, W]``, any clip that it takes.
    """
    order: list[str] = []
    every = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d | nn.Conv3d)}
    # A projection of single places, such as a shortcut's, looks at nothing by itself.
    convolutions = {name: module for name, module in every.items() if max(module.kernel_size) > 1} or every

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if _is_map(output, num_clips=1):  # attention may convolve each of its heads by itself
                order.append(name)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in convolutions.items()]
    try:
        with torch.inference_mode():
            backbone.eval().feature_map(clip)
    finally:
        for hook in hooks:
            hook.remove()
    middle = [order[len(order) // 2]] if len(order) > 1 else order
    return [FEATURE_MAP, *middle]


def receptive_field(
    backbone: Backbone, clip: Tensor, *, layer: str, unit: int
) -> tuple[float, tuple[int, int, int], Box | None]:
    """A unit's largest activation over a clip, where it is, and the pixels that move it.

    The box bounds the input pixels with a gradient that isn't zero, in any channel, in eval mode. It lies inside the
    field that kernel sizes and strides give, and may be smaller where rectifiers are shut or a pooling took another
    place.

    Args:
        backbone: in eval mode.
        clip: ``[C, T, H, W]``.
        layer: name of a module with a map, or ``feature_map``.
        unit: its channel.

    Returns:
        value, position in the map (frame, row, column), box or None where no pixel moves it.
    """
    pixels = clip.detach().clone()[None].requires_grad_()
    with torch.enable_grad(), _maps(backbone, [layer], num_clips=1) as found:
        found[FEATURE_MAP] = backbone.feature_map(pixels)
        values = found[layer][0, unit]
        place = int(values.argmax())
        peak = values.flatten()[place]
        gradient = torch.autograd.grad(peak, pixels)[0][0] if peak.requires_grad else torch.zeros_like(clip)
    t, y, x = (int(index) for index in np.unravel_index(place, values.shape))
    return float(peak.detach()), (t, y, x), _bounds(gradient.abs().sum(dim=0) > 0)


def _bounds(mask: Tensor) -> Box | None:
    """The bounding box of ``[T, H, W]``."""
    if not bool(mask.any()):
        return None
    ends: list[int] = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        inside = mask.any(dim=others).nonzero().flatten()
        ends += [int(inside[0]), int(inside[-1]) + 1]
    return (ends[0], ends[1], ends[2], ends[3], ends[4], ends[5])


def _strongest(backbone: Backbone, row: int, clips: Sequence[Tensor], *, layer: str, unit: int) -> ActiveClip:
    """The clip of a video that fires a unit most."""
    fields = [receptive_field(backbone, clip, layer=layer, unit=unit) for clip in clips]
    best = max(range(len(clips)), key=lambda number: fields[number][0])
    value, position, box = fields[best]
    return ActiveClip(row, value, position, box, clips[best])


def _choose(values: np.ndarray, *, num_units: int, top: int) -> list[tuple[int, float, list[int]]]:
    """Number, mean and strongest videos of the chosen units of ``[videos, units]``."""
    order = np.argsort(-values, axis=0, kind="stable")[:top]
    strongest = np.take_along_axis(values, order, axis=0).mean(axis=0)
    spread = values.std(axis=0)
    stands_out = np.where(spread > 0, (strongest - values.mean(axis=0)) / np.maximum(spread, 1e-12), -np.inf)
    units = np.argsort(-stands_out, kind="stable")[:num_units]
    return [
        (int(unit), float(values[:, unit].mean()), [int(place) for place in order[:, unit]])
        for unit in units
        if np.isfinite(stands_out[unit])
    ]


@torch.inference_mode()
def _unit_maxima(
    backbone: Backbone, batches: Iterable[ClipBatch], layers: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Per layer ``[videos, units]``, the largest activation over all clips and places of a video; rows ``[videos]``."""
    values: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    rows: list[int] = []
    for batch in batches:
        if len(batch) == 0:
            continue
        clips = batch.clips.flatten(0, 1)
        with _maps(backbone, layers, num_clips=len(clips)) as found:
            found[FEATURE_MAP] = backbone.feature_map(clips)
            for layer in layers:
                per_clip = found[layer].amax(dim=(2, 3, 4)).unflatten(0, batch.clips.shape[:2])
                values[layer].append(per_clip.amax(dim=1).float().cpu().numpy())
        rows += batch.rows.tolist()
    return {layer: np.concatenate(parts) for layer, parts in values.items() if parts}, np.array(rows, dtype=np.int64)


@contextmanager
def _maps(backbone: Backbone, layers: Sequence[str], *, num_clips: int) -> Iterator[dict[str, Tensor]]:
    """Collects the maps ``[N, D, t, h, w]`` of the layers while the block runs the backbone."""
    modules = dict(backbone.named_modules())
    asked = [layer for layer in layers if layer != FEATURE_MAP]
    unknown = [layer for layer in asked if layer not in modules or not layer]
    if unknown:
        names = [name for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Conv3d)]
        raise InputError(
            f"--layers={','.join(unknown)} is no layer of {type(backbone).__name__}; take {FEATURE_MAP} or a module's "
            f"name such as {', '.join(names[:6])}."
        )
    found: dict[str, Tensor] = {}

    def keep(layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            # A copy: the next layer may be a rectifier that writes into this one's output.
            found[layer] = _as_map(output, layer=layer, num_clips=num_clips).clone()

        return hook

    hooks = [modules[layer].register_forward_hook(keep(layer)) for layer in asked]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _is_map(output: Any, *, num_clips: int) -> TypeGuard[Tensor]:
    if not isinstance(output, Tensor):
        return False
    return (output.ndim == 5 and len(output) == num_clips) or (output.ndim == 4 and len(output) % num_clips == 0)


def _as_map(output: Any, *, layer: str, num_clips: int) -> Tensor:
    """``[N, D, t, h, w]`` of a layer on clips, or of one on single frames ``[N * t, D, h, w]``."""
    if _is_map(output, num_clips=num_clips):
        if output.ndim == 5:
            return output
        maps: Tensor = output.unflatten(0, (num_clips, -1)).transpose(1, 2)
        return maps
    shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise InputError(
        f"--layers={layer} gives {shape}, which is no map [N, D, t, h, w] or [N * t, D, h, w] of places; take a "
        f"convolution, or {FEATURE_MAP}."
    )
