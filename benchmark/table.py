"""The benchmark's table and picture, made of its result files."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

SHOWN = {"knn": ("kNN", "top1"), "linear_probe": ("linear", "top1"), "retrieval": ("R@1", "recall_at_1")}
Results = dict[str, list[dict[str, Any]]]


def write_table(results: Path, folder: Path) -> None:
    """Writes ``RESULTS.md`` and one ``<dataset>.png`` per data set; without results, nothing."""
    parts = []
    for dataset in sorted(path for path in results.iterdir() if path.is_dir()) if results.is_dir() else []:
        cells = read_cells(dataset)
        if cells:
            parts.append(f"## {dataset.name}\n\n{format_table(cells)}\n\n![{dataset.name}]({dataset.name}.png)\n")
            draw(cells, folder / f"{dataset.name}.png", title=dataset.name)
    if parts:
        intro = (
            "# Benchmark\n\nMade by `make benchmark`; do not edit. Equal steps for all methods, frozen features, in %, "
            "mean ± deviation over seeds.\nBehind each number, in brackets, the same backbone with random weights.\n"
            "`supervised` is trained with all labels of the first column, and is a reference; `tcl` with a quarter of\n"
            "the labels, on the embedded data those of appearance.\n"
        )
        (folder / "RESULTS.md").write_text("\n".join([intro, *parts]))


def read_cells(dataset: Path) -> Results:
    """The cells of a data set, by method."""
    cells: Results = defaultdict(list)
    for file in sorted(dataset.glob("*.json")):
        cell = json.loads(file.read_text())
        cells[cell["method"]].append(cell)
    return dict(cells)


def format_table(cells: Results) -> str:
    """One line per method."""
    columns = list(next(iter(cells.values()))[0]["scores"])
    several = len({column.split(" ")[0] for column in columns}) > 1
    names = [column_name(column, several=several) for column in columns]
    head = ["method", "backbone", "seeds", "steps", *names, "frames/s", "memory, GB", "seconds", "revision"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for method, runs in sorted(cells.items()):
        texts = [method, runs[0]["backbone"], str(len(runs)), str(runs[0]["steps"])]
        texts += [f"{spread(runs, c, 'checkpoint')} ({spread(runs, c, 'random')})" for c in columns]
        texts += [
            f"{np.mean([run['frames_per_second'] for run in runs]):.0f}",
            f"{max(run['peak_memory_bytes'] for run in runs) / 1e9:.1f}",
            f"{np.mean([run['seconds'] for run in runs]):.0f}",
            ", ".join(sorted({str(run["revision"])[:7] for run in runs})),
        ]
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def column_name(column: str, *, several: bool) -> str:
    """``motion knn`` to ``motion kNN``, or ``kNN`` where there is one label only."""
    label, protocol = column.split(" ")
    return f"{label} {SHOWN[protocol][0]}" if several else SHOWN[protocol][0]


def values(runs: list[dict[str, Any]], column: str, backbone: str) -> list[float]:
    """A column's metric of each run, in per cent."""
    metric = SHOWN[column.split(" ")[1]][1]
    return [100 * run["scores"][column][backbone][metric] for run in runs]


def spread(runs: list[dict[str, Any]], column: str, backbone: str) -> str:
    """Mean, and deviation where there are several runs."""
    found = values(runs, column, backbone)
    mean = f"{np.mean(found):.1f}"
    return mean if len(found) == 1 else f"{mean} ± {np.std(found, ddof=1):.1f}"


def draw(cells: Results, path: Path, *, title: str) -> None:
    """Bars of each method beside its random row, one panel per column of kNN and linear probe."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = [column for column in next(iter(cells.values()))[0]["scores"] if not column.endswith("retrieval")]
    methods = sorted(cells)
    figure, panels = pyplot.subplots(
        1, len(columns), figsize=(3.2 * len(columns) + 1.5, 0.42 * len(methods) + 1.4), sharey=True, squeeze=False
    )
    places = np.arange(len(methods))
    for panel, column in zip(panels[0], columns, strict=True):
        for number, (backbone, colour) in enumerate((("random", "#b8b8b8"), ("checkpoint", "#2b6cb0"))):
            found = [values(cells[method], column, backbone) for method in methods]
            panel.barh(
                places + 0.2 - 0.4 * number,
                [float(np.mean(one)) for one in found],
                height=0.38,
                color=colour,
                xerr=[float(np.std(one, ddof=1)) if len(one) > 1 else 0.0 for one in found],
                error_kw={"lw": 1},
                label={"random": "random", "checkpoint": "pre-trained"}[backbone],
            )
        panel.set(title=column.replace("_", " "), xlabel="%", xlim=(0, 100))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_yticks(places, methods)
    panels[0][0].invert_yaxis()
    figure.suptitle(f"{title}: top-1 of frozen features")
    handles, names = panels[0][-1].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], frameon=False, loc="outside right upper")
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
