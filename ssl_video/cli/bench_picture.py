"""The measurements of `ssl-video bench` as one picture: what the loader, the step and both together take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ssl_video.cli.bench_rounds import LOADER_PARTS, STEP_PARTS, Measured

# Okabe and Ito's colours, which stay apart for readers who do not see red and green alike: the loader's warm, the
# step's cold.
COLOURS = {
    "storage": "#E69F00",
    "decode": "#D55E00",
    "transform": "#F0E442",
    "collate": "#CC79A7",
    "transfer": "#B7DDF2",
    "finish": "#56B4E9",
    "forward": "#0072B2",
    "backward": "#003E63",
    "optimizer": "#009E73",
    "rest": "#BBBBBB",
}
_DARK = ("decode", "forward", "backward", "optimizer")
_SMALLEST_LABEL = 0.07  # of the picture's width
PITCH = 5.2  # of the configurations' places: three bars and what is said of them
CHARACTERS = 105  # of a line


def draw(measured: Sequence[Measured], *, verdicts: Sequence[str], path: Path) -> None:
    """Writes a PNG: three bars for each configuration."""
    figure = Figure(figsize=(10, 1.6 + 2.3 * len(measured)), layout="constrained")
    axes: Axes = figure.subplots()
    widest = max(max(own.delivery_ms, sum(own.step.values()), own.whole_ms) for own in measured)
    ticks: list[tuple[float, str]] = []
    for number, (own, told) in enumerate(zip(measured, verdicts, strict=True)):
        ticks += _bars(axes, own, top=number * PITCH, widest=widest)
        text = "\n".join(line for part in (own.circumstances.name, told) for line in wrap(part, CHARACTERS))
        axes.text(0, number * PITCH - 0.55, text, fontsize=9, va="bottom")
    axes.set_yticks([place for place, _ in ticks], [label for _, label in ticks])
    axes.set_ylim((len(measured) - 1) * PITCH + 2.6, -2.6)
    axes.set_xlim(0, widest * 1.12)
    axes.set_xlabel("milliseconds per step")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    handles = [Patch(color=COLOURS[part], label=name) for part, name in {**LOADER_PARTS, **STEP_PARTS}.items()]
    handles.append(Patch(color="#777777", label="not waiting"))
    handles.append(Patch(facecolor="white", edgecolor="#777777", hatch="///", label="waiting for the loader"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.savefig(path, dpi=130, format="png")


def _bars(axes: Axes, measured: Measured, *, top: float, widest: float) -> list[tuple[float, str]]:
    own, lanes = measured.circumstances, measured.lanes
    workers = f"÷ {lanes} worker{'s' if lanes > 1 else ''}" if own.num_workers else "main process"
    _stack(axes, {part: value / lanes for part, value in measured.loader.items()}, place=top, widest=widest)
    _stack(axes, measured.step, place=top + 1, widest=widest)
    busy = max(0.0, measured.whole_ms - measured.waited_ms)
    axes.barh(top + 2, busy, height=0.72, color="#777777")
    axes.barh(top + 2, measured.waited_ms, left=busy, height=0.72, color="white", edgecolor="#777777", hatch="///")
    for place, value in enumerate((measured.delivery_ms, sum(measured.step.values()), measured.whole_ms)):
        axes.text(value + widest * 0.008, top + place, f"{value:,.1f}", va="center", fontsize=9)
    return [(top, f"loader {workers}"), (top + 1, "step alone"), (top + 2, "end to end")]


def _stack(axes: Axes, values: dict[str, float], *, place: float, widest: float) -> None:
    left = 0.0
    for part, value in values.items():
        axes.barh(place, value, left=left, height=0.72, color=COLOURS[part])
        if value > _SMALLEST_LABEL * widest:
            colour = "white" if part in _DARK else "black"
            axes.text(left + value / 2, place, f"{value:,.1f}", ha="center", va="center", color=colour, fontsize=9)
        left += value
