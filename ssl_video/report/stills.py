"""Pictures that need no page: neighbours, the plane of features, and the clips that excite a unit."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssl_video.report.activations import Unit
from ssl_video.report.feature_map import FeatureMap
from ssl_video.report.pictures import with_box
from ssl_video.report.retrieval_sheet import Item, Sheet

Pixels = NDArray[np.uint8]

# Okabe and Ito's colours, which stay apart for readers who do not see red and green alike.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HIT, MISS, UNKNOWN = "#009E73", "#D55E00", "#9A9A9A"
MOST_NAMED_CLASSES = 24

SIDE = 72  # pixels of a frame
MARGIN, GAP, LINE = 12, 10, 16


def as_pixels(clip: Tensor) -> Pixels:
    """A normalised clip ``[C, T, H, W]`` as uint8 ``[T, H, W, 3]``, its own range stretched to what can be shown."""
    images = clip[:3].permute(1, 2, 3, 0).float()
    low, high = images.min(), images.max()
    pixels: Pixels = ((images - low) / (high - low).clamp_min(1e-6) * 255).byte().cpu().numpy()
    return pixels if pixels.shape[-1] == 3 else np.repeat(pixels[..., :1], 3, axis=-1)


def three_frames(frames: Pixels) -> Pixels:
    """First, middle and last frame of ``[T, H, W, 3]`` beside each other: a single one says nothing of motion."""
    chosen = frames[[0, len(frames) // 2, len(frames) - 1]]
    tiles = [Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for frame in chosen]
    return np.concatenate([np.asarray(tile) for tile in tiles], axis=1)


def neighbour_sheet(sheet: Sheet, thumbnails: Mapping[str, Pixels]) -> Pixels:
    """A row per query: the query, then its nearest videos, framed by whether they are of its class.

    Args:
        sheet: queries and neighbours.
        thumbnails: by path, uint8 ``[h, w, 3]`` of one size.
    """
    height, width = next(iter(thumbnails.values())).shape[:2]
    columns = 1 + max(len(query.neighbours) for query in sheet.queries)
    size = (
        2 * MARGIN + columns * (width + GAP) + GAP,
        2 * MARGIN + LINE + len(sheet.queries) * (height + LINE + GAP),
    )
    picture = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    heads = ["query", *(f"{number}. nearest" for number in range(1, columns))]
    lefts = [MARGIN + place * (width + GAP) + (2 * GAP if place else 0) for place in range(columns)]
    for left, head in zip(lefts, heads, strict=True):
        pen.text((left, MARGIN - 4), head, fill="#666666", font=font)
    for row, query in enumerate(sheet.queries):
        top = MARGIN + LINE + row * (height + LINE + GAP)
        for place, (left, item) in enumerate(zip(lefts, [query.video, *query.neighbours], strict=False)):
            colour = "#1c1c1c" if place == 0 else _colour_of(item)
            picture.paste(Image.fromarray(thumbnails[item.path]), (left, top))
            pen.rectangle((left - 2, top - 2, left + width + 1, top + height + 1), outline=colour, width=2)
            pen.text((left, top + height + 2), _cut(item.label or item.path), fill=colour, font=font)
    return np.asarray(picture)


def _colour_of(item: Item) -> str:
    return UNKNOWN if item.hit is None else HIT if item.hit else MISS


def _cut(text: str) -> str:
    return text if len(text) <= 30 else "…" + text[-29:]


def feature_plane(found: FeatureMap, labels: Sequence[str | None], *, title: str) -> Pixels:
    """The places of videos, each class in a colour and a shape of its own.

    Args:
        found: the places.
        labels: of all videos, in the order of the features.
        title: above the picture.
    """
    shown = [labels[row] for row in found.rows]
    names = sorted({label for label in shown if label is not None})
    figure = Figure(figsize=(7.2, 4.8), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    unnamed = np.array([label is None for label in shown])
    if unnamed.any():
        axes.scatter(found.places[unnamed, 0], found.places[unnamed, 1], s=16, color=UNKNOWN, label="no label")
    for number, name in enumerate(names):
        own = np.array([label == name for label in shown])
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        axes.scatter(
            found.places[own, 0], found.places[own, 1], s=22, color=colour, marker=marker, label=name, linewidths=0
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(found.method, fontsize=8, color="#666666")
    if 0 < len(names) <= MOST_NAMED_CLASSES:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    return as_image(figure)


def as_image(figure: Figure) -> Pixels:
    """A figure as uint8 ``[H, W, 3]``, without touching Matplotlib's global state."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def unit_sheet(layers: Mapping[str, Sequence[Unit]], labels: Mapping[int, str | None]) -> Pixels:
    """A row per unit: the clips that excite it most, with the part that does marked.

    Args:
        layers: units by layer.
        labels: class names by row of the manifest.
    """
    rows = [(layer, unit) for layer, units in layers.items() for unit in units]
    side = SIDE + 24
    columns = max(len(unit.clips) for _, unit in rows)
    size = (2 * MARGIN + 150 + columns * (side + GAP), 2 * MARGIN + len(rows) * (side + LINE + GAP))
    picture = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    for row, (layer, unit) in enumerate(rows):
        top = MARGIN + row * (side + LINE + GAP)
        pen.text((MARGIN, top), f"{layer}\nunit {unit.number}", fill="#1c1c1c", font=font)
        for place, clip in enumerate(unit.clips):
            left = MARGIN + 150 + place * (side + GAP)
            frames = with_box(as_pixels(clip.clip), clip.box, short_side=side)
            middle = len(frames) // 2 if clip.box is None else (clip.box[0] + clip.box[1] - 1) // 2
            picture.paste(Image.fromarray(frames[middle]).resize((side, side)), (left, top))
            told = f"{clip.value:.2f} {labels.get(clip.row) or ''}"
            pen.text((left, top + side + 1), told[:16], fill="#666666", font=font)
    return np.asarray(picture)
