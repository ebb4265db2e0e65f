"""A picture of the dashboard that a W&B run makes, drawn from the run's own files.

W&B's page cannot be opened without its server. Its layout follows from the run, though: a section per word before the
slash, a panel per value over the step metric, media as galleries. That is drawn here, for offline runs only::

    python -m benchmark.dashboard RUN -o docs/dashboard.png
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from ssl_video.utils.run import read_record
from ssl_video.utils.wandb_file import read_history, read_records, run_files

SECTIONS = ("train", "val", "health", "data", "time", "eval", "pictures")
STEP = "trainer/global_step"
COLUMNS = 5
PANEL_INCHES = (3.0, 1.75)
PICTURE_INCHES = 4.4
CLIPS_INCHES = 2.4
SHOWN_CLIPS = 10
BLUE, GREY, INK = "#0072B2", "#6b6b6b", "#1c1c1c"
# What of the configuration the head shows: what tells runs apart.
SHOWN_KEYS = (
    *("choices.method", "choices.backbone", "choices.dataset", "batch_size", "optimizer.lr", "seed"),
    *("run.used", "run.manifest_hash", "run.git_revision", "run.device"),
)


@dataclass(frozen=True)
class Dashboard:
    """What the files of one run hold.

    Attributes:
        name: of the run.
        facts: group, tags and the like, as text by name.
        config: by dotted key.
        curves: steps and values by name.
        media: paths of pictures by name, the newest.
        clips: paths and captions of the clips of the table.
    """

    name: str
    facts: Mapping[str, str]
    config: Mapping[str, Any]
    curves: Mapping[str, tuple[list[float], list[float]]]
    media: Mapping[str, Path]
    clips: Sequence[tuple[Path, str]]


def read_dashboard(folder: Path) -> Dashboard:
    """Reads the files of a run, of its resumes and evaluations, in the order they were made."""
    known = read_record(folder).get("loggers", {}).get("wandb")
    files = [] if known is None else run_files(folder, known["id"])
    if not files:
        raise ValueError(f"{folder} holds no offline W&B run; train with logger=wandb logger.wandb.offline=true.")
    config: dict[str, Any] = {}
    curves: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    media: dict[str, Path] = {}
    clips: list[tuple[Path, str]] = []
    heads = []
    for file in files:
        for record in read_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                heads.append(record.run)
            elif kind == "config":
                config |= _flat({item.key: json.loads(item.value_json) for item in record.config.update})
        for row in read_history(file):
            step = float(row.get(STEP, row["_step"]))
            for name, value in row.items():
                if isinstance(value, int | float) and name.split("/")[0] in SECTIONS[:-1]:
                    curves[name][0].append(step)
                    curves[name][1].append(float(value))
                elif name.endswith("._type") and value == "image-file":
                    media[name.removesuffix("._type")] = file.parent / "files" / row[name.replace("._type", ".path")]
                elif name.endswith("_playing.videos"):
                    clips = [(file.parent / "files" / one["path"], str(one["caption"])) for one in value]
    head = heads[0]
    facts = {"group": head.run_group, "job type": head.job_type, "tags": "  ".join(head.tags), "id": head.run_id}
    facts["files"] = f"{len(files)} (training, resumes and evaluations of one id)"
    return Dashboard(head.display_name, facts, config, dict(curves), media, clips)


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def draw(board: Dashboard) -> Figure:
    """The page: head, then sections with their panels."""
    names = {
        section: sorted(name for name in board.curves if name.split("/")[0] == section) for section in SECTIONS[:-1]
    }
    shown = {section: panels for section, panels in names.items() if panels}
    heights = [1.5, *(0.35 + PANEL_INCHES[1] * -(-len(panels) // COLUMNS) for panels in shown.values())]
    if board.clips:
        heights.append(CLIPS_INCHES)
    if board.media:
        heights.append(0.35 + PICTURE_INCHES)
    figure = Figure(figsize=(COLUMNS * PANEL_INCHES[0], sum(heights)), dpi=80, facecolor="white")
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, hspace=0)
    parts = list(np.atleast_1d(parts))
    _draw_head(parts.pop(0), board)
    for section, panels in shown.items():
        _draw_section(parts.pop(0), section, panels, board.curves)
    if board.clips:
        _draw_clips(parts.pop(0), board.clips)
    if board.media:
        _draw_media(parts.pop(0), board.media)
    return figure


def _draw_head(part: SubFigure, board: Dashboard) -> None:
    part.text(0.012, 0.86, board.name, fontsize=15, weight="bold", color=INK, va="top")
    told = "     ".join(f"{name}: {value}" for name, value in board.facts.items())
    part.text(0.012, 0.6, told, fontsize=9, color=GREY, va="top")
    shown = [f"{key} = {str(board.config[key])[:24]}" for key in SHOWN_KEYS if key in board.config]
    lines = ["config:  " + "    ".join(shown[:6]), "              " + "    ".join(shown[6:])]
    lines.append(f"              and {len(board.config) - len(shown)} more keys, each a column of the table of runs")
    part.text(0.012, 0.42, "\n".join(lines), fontsize=9, color=INK, va="top", linespacing=1.5)


def _bar(part: SubFigure, title: str, *, inches: float) -> None:
    """The section's head, as a grey bar."""
    share = 0.27 / inches
    part.add_artist(_rectangle(part, 1 - share, share))
    part.text(0.012, 1 - share / 2, title, fontsize=10, weight="bold", color=INK, va="center")


def _rectangle(part: SubFigure, bottom: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0.006, bottom), 0.988, height, transform=part.transSubfigure, color="#eef0f3", zorder=-1)


def _draw_section(
    part: SubFigure, section: str, panels: Sequence[str], curves: Mapping[str, tuple[list[float], list[float]]]
) -> None:
    rows = -(-len(panels) // COLUMNS)
    inches = 0.35 + PANEL_INCHES[1] * rows
    _bar(part, f"{section}   {len(panels)}", inches=inches)
    grid = part.add_gridspec(
        rows,
        COLUMNS,
        left=0.035,
        right=0.99,
        top=1 - 0.62 / inches,
        bottom=0.3 / inches,
        hspace=0.62,
        wspace=0.24,
    )
    for place, name in enumerate(panels):
        _draw_panel(part.add_subplot(grid[place // COLUMNS, place % COLUMNS]), name, *curves[name])


def _draw_panel(axes: Axes, name: str, steps: list[float], values: list[float]) -> None:
    axes.set_title(name, fontsize=8 if len(name) <= 34 else 6.5, color=INK, pad=3)
    axes.tick_params(labelsize=7, colors=GREY, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#cccccc")
    if len(values) == 1:  # W&B draws a bar of a value that stands once
        axes.barh([0], values, color=BLUE, height=0.5)
        axes.text(0.98, 0.9, f"{values[0]:.3g}", transform=axes.transAxes, ha="right", fontsize=8, color=INK)
        axes.set_yticks([])
        axes.set_ylim(-1, 1)
        return
    axes.plot(steps, values, color=BLUE, linewidth=1.2)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.margins(x=0.02, y=0.12)


def _draw_clips(part: SubFigure, clips: Sequence[tuple[Path, str]]) -> None:
    _bar(
        part,
        "pictures/clips   what the networks see: a table with playing clips (first frames shown)",
        inches=CLIPS_INCHES,
    )
    shown = clips[:SHOWN_CLIPS]
    grid = part.add_gridspec(1, SHOWN_CLIPS, left=0.012, right=0.99, top=0.84, bottom=0.36, wspace=0.08)
    for place, (path, caption) in enumerate(shown):
        axes = part.add_subplot(grid[0, place])
        with Image.open(path) as clip:
            axes.imshow(np.asarray(clip.convert("RGB")))
        axes.set_axis_off()
        video, label, network, frames = [*caption.split(", "), "", "", ""][:4]
        told = f"{video.rpartition('/')[2]}\n{label}\n{network}\nframes {frames[:14]}…"
        axes.text(0.5, -0.05, told, transform=axes.transAxes, fontsize=7, color=GREY, ha="center", va="top")


def _draw_media(part: SubFigure, media: Mapping[str, Path]) -> None:
    inches = 0.35 + PICTURE_INCHES
    _bar(part, "pictures   every few epochs, with a slider over the steps (the newest shown)", inches=inches)
    images = []
    for path in media.values():
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB")))
    widths = [pixels.shape[1] / pixels.shape[0] for pixels in images]
    grid = part.add_gridspec(
        1,
        len(images),
        width_ratios=widths,
        left=0.012,
        right=0.99,
        top=1 - 0.55 / inches,
        bottom=0.02,
        wspace=0.05,
    )
    for place, (name, pixels) in enumerate(zip(media, images, strict=True)):
        axes = part.add_subplot(grid[0, place])
        axes.imshow(pixels, interpolation="antialiased")
        axes.set_title(name, fontsize=8, color=INK, pad=3)
        axes.set_axis_off()


def main(argv: Sequence[str] | None = None) -> int:
    """Draws one run; returns 0, or 2 where there is nothing to draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.dashboard", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a training run's folder")
    parser.add_argument("-o", "--output", type=Path, default=Path("dashboard.png"))
    given = parser.parse_args(argv)
    try:
        board = read_dashboard(given.run)
    except ValueError as fault:
        print(fault, file=sys.stderr)
        return 2
    figure = draw(board)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.output)
    with Image.open(given.output) as drawn:
        # A palette that keeps rare colours, those of the points: a quarter of the bytes.
        small = drawn.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    small.save(given.output, optimize=True)
    print(f"written: {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
