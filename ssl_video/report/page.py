"""Putting the page together: one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ssl_video.report import figures
from ssl_video.report.activations import FEATURE_MAP, Box, Unit
from ssl_video.report.contents import Measured, Run, measured
from ssl_video.report.feature_map import map_features
from ssl_video.report.pictures import data_uri
from ssl_video.report.protocol_figures import protocol_figures
from ssl_video.report.retrieval_sheet import SHOWN_NEIGHBOURS, Sheet, make_sheet
from ssl_video.report.tables import (
    class_table,
    confusion,
    data_title,
    protocol_settings,
    result_facts,
    result_notes,
    run_facts,
    score_table,
    software_facts,
)

TEMPLATES = Path(__file__).parent / "templates"
# What tells a page of ours from any other file.
MARK = '<meta name="generator" content="ssl-video report">'
MAX_QUERIES = 24
MIN_QUERIES = 6
MAX_MAP_POINTS = 3000
MIN_MAP_POINTS = 500
MAX_HOVER_PICTURES = 240

# Paths of one run's data set to their animated WebP; a path that cannot be read is absent.
LoadPictures = Callable[[Measured, Sequence[str]], Mapping[str, bytes]]
Differences = Callable[[Sequence[Mapping[str, Any]]], Sequence[str]]


@dataclass(frozen=True)
class FiringClip:
    """A clip under a unit: the picture, and in words how strongly it fires and from where."""

    picture: bytes
    path: str
    label: str | None
    value: float
    box: Box | None


@dataclass(frozen=True)
class Layer:
    """The units of one layer with their clips."""

    name: str
    units: Sequence[tuple[Unit, Sequence[FiringClip]]]


@dataclass(frozen=True)
class Activations:
    """What fires the units of one run's network.

    Attributes:
        videos: how many videos were looked at.
        split: which they are.
        clip_size: frames, rows and columns of a clip.
        layers: the chosen layers.
    """

    videos: int
    split: str
    clip_size: tuple[int, int, int]
    layers: Sequence[Layer]


@dataclass
class _Data:
    """What the page's script reads: figures by the id of their place, pictures by key."""

    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    keys: dict[bytes, str] = field(default_factory=dict)

    def add_figure(self, figure: go.Figure) -> dict[str, Any]:
        """Keeps a figure and returns what the template needs of it."""
        name = f"figure-{len(self.figures) + 1}"
        self.figures[name] = figures.as_json(figure)
        return {"id": name, "height": figure.layout.height}

    def add_picture(self, webp: bytes) -> str:
        """Keeps a picture, once however often it is shown, and returns its key."""
        digest = hashlib.sha256(webp).digest()
        if digest not in self.keys:
            self.keys[digest] = f"p{len(self.keys) + 1}"
            self.pictures[self.keys[digest]] = data_uri(webp)
        return self.keys[digest]


def build_page(
    runs: Sequence[Run],
    *,
    differences: Differences,
    load_pictures: LoadPictures,
    activations: Mapping[str, Activations],
    more_notes: Callable[[], Sequence[str]] = list,
    seed: int = 0,
) -> str:
    """The HTML of one page about some runs.

    Args:
        runs: with different names.
        differences: says what stands against comparing results, given a scorecard's content per run.
        load_pictures: makes the thumbnails that the page chooses to show.
        activations: by the run's name.
        more_notes: what else could not be shown; asked last, as loading pictures adds to it.
        seed: of every draw: which queries are shown, which points, t-SNE.
    """
    data = _Data()
    groups = measured(runs)
    training = [(title, data.add_figure(figure)) for title, figure in figures.curves(runs)]
    parts = [
        _results(where, group, data, differences=differences, load_pictures=load_pictures, seed=seed)
        for where, group in groups.items()
    ]
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plotly_script = get_plotlyjs()
    return environment.get_template("page.html.j2").render(
        mark=Markup(MARK),
        script_hashes=Markup(" ".join(_script_hash(text) for text in (plotly_script, script))),
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        plotly_script=Markup(plotly_script),
        script=Markup(script),
        runs=[(run.name, figures.run_colour(number)) for number, run in enumerate(runs)],
        facts=run_facts(runs),
        more_facts=software_facts(runs),
        training=training,
        has_training=any(run.record for run in runs),
        groups=parts,
        over_splits=any(one.official_splits for group in groups.values() for one in group),
        activations=[(name, _activations(found, data)) for name, found in activations.items()],
        apart=_measured_apart(runs, groups),
        notes=[*(f"{run.name}: {note}" for run in runs for note in run.notes), *more_notes()],
        # Markup: the JSON's own signs of HTML are escaped already.
        data=htmlsafe_json_dumps({"figures": data.figures, "pictures": data.pictures}, separators=(",", ":")),
    )


def is_page(start: bytes) -> bool:
    """Whether a file that begins with these bytes, its first 4096 or more, is a page of ours.

    The mark alone is not enough: a text about such pages may quote it.
    """
    return start.startswith(b"<!DOCTYPE html>\n") and f"\n{MARK}\n".encode() in start


def _script_hash(text: str) -> str:
    """The page's scripts by their hashes: its policy lets no other script run, whatever a name has in it."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _results(
    where: tuple[str, str],
    group: Sequence[Measured],
    data: _Data,
    *,
    differences: Differences,
    load_pictures: LoadPictures,
    seed: int,
) -> dict[str, Any]:
    """Everything about one data set and label."""
    queries = max(MIN_QUERIES, MAX_QUERIES // len(group))
    points = max(MIN_MAP_POINTS, MAX_MAP_POINTS // len(group))
    matrices = [(one, confusion(one)) for one in group]
    sheets = [_sheet(make_sheet(one, queries=queries, seed=seed), one, data, load_pictures) for one in group]
    maps = [_map(one, data, load_pictures, max_points=points, num_runs=len(group), seed=seed) for one in group]
    return {
        "title": data_title(where),
        "slug": "-".join("".join(c if c.isalnum() else " " for c in data_title(where)).split()).lower(),
        "runs": [one.run for one in group],
        "told": result_notes(group),
        "warnings": _warnings(group, differences),
        "older": [f"{one.run}: {one.older}" for one in group if one.older],
        "scores": score_table(where, group),
        "facts": result_facts(group),
        "settings": protocol_settings(group),
        "classes": class_table(group),
        "confusions": [
            {"matrix": matrix, "figure": data.add_figure(figures.confusion(matrix))} for _, matrix in matrices if matrix
        ],
        "sheets": [sheet for sheet in sheets if sheet],
        "neighbours": SHOWN_NEIGHBOURS,
        "maps": [one for one in maps if one],
        "protocols": [
            {
                "name": name,
                "title": title,
                "text": text,
                "figures": [(caption, data.add_figure(figure)) for caption, figure in plots],
            }
            for name, title, text, plots in protocol_figures(group)
        ],
    }


def _warnings(group: Sequence[Measured], differences: Differences) -> list[tuple[str, list[str]]]:
    """What stands against comparing each run with the first: heading and sentences."""
    first, found = group[0], []
    for other in group[1:]:
        lines = list(differences([first.report, other.report]))
        if lines:
            found.append((f"{other.run} (result 2) against {first.run} (result 1)", lines))
    return found


def _measured_apart(runs: Sequence[Run], groups: Mapping[tuple[str, str], Sequence[Measured]]) -> list[str]:
    """Runs that were not measured on what others were measured on."""
    names = [run.name for run in runs if run.evaluations]
    return [
        f"{data_title(where)}: measured for {', '.join(one.run for one in group)} only"
        for where, group in groups.items()
        if len(group) < len(names)
    ]


def _sheet(sheet: Sheet | None, one: Measured, data: _Data, load_pictures: LoadPictures) -> dict[str, Any] | None:
    if sheet is None:
        return None
    videos = [video for query in sheet.queries for video in (query.video, *query.neighbours)]
    loaded = load_pictures(one, list(dict.fromkeys(video.path for video in videos)))
    keys = {path: data.add_picture(webp) for path, webp in loaded.items()}
    return {"sheet": sheet, "shown": keys, "without": len({video.path for video in videos} - keys.keys())}


def _map(
    one: Measured, data: _Data, load_pictures: LoadPictures, *, max_points: int, num_runs: int, seed: int
) -> dict[str, Any] | None:
    if one.features is None or one.predictions is None:
        return None
    points = map_features(one.features, max_points=max_points, seed=seed)
    if points is None:
        return {"run": one.run, "figure": None, "points": None, "videos": len(one.features), "pictures": 0}
    # The points are a draw already or few: every k-th of them is as good as another draw.
    step = -(-len(points.rows) // max(1, MAX_HOVER_PICTURES // num_runs))
    rows = points.rows[::step].tolist()
    paths = one.predictions.paths
    loaded = load_pictures(one, [paths[row] for row in rows])
    keys = {row: data.add_picture(loaded[paths[row]]) for row in rows if paths[row] in loaded}
    figure = figures.feature_map(points, labels=one.predictions.labels, paths=paths, pictures=keys)
    return {
        "run": one.run,
        "figure": data.add_figure(figure),
        "points": points,
        "videos": len(one.features),
        "pictures": len(keys),
    }


def _activations(found: Activations, data: _Data) -> dict[str, Any]:
    return {
        "videos": found.videos,
        "split": found.split,
        "clip_size": found.clip_size,
        "layers": [
            {
                "name": "the last feature map" if layer.name == FEATURE_MAP else layer.name,
                "units": [
                    {
                        "number": unit.number,
                        "mean": unit.mean,
                        "clips": [
                            {
                                "key": data.add_picture(clip.picture),
                                "path": clip.path,
                                "label": clip.label,
                                "value": clip.value,
                                "field": _field(clip.box),
                            }
                            for clip in clips
                        ],
                    }
                    for unit, clips in layer.units
                ],
            }
            for layer in found.layers
        ],
    }


def _field(box: Box | None) -> str:
    if box is None:
        return "no pixel moves it"
    frames, rows, columns = (box[2 * axis + 1] - box[2 * axis] for axis in range(3))
    return f"{frames} frame{'s' * (frames > 1)} × {rows} × {columns} px"
