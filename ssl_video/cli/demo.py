"""``make demo``: from nothing to a table and a picture, with the commands that a user would type."""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from ssl_video.cli import evaluate, train
from ssl_video.utils.run import write_json

LABELS = ("motion", "appearance")
PROTOCOLS = ("knn", "linear_probe")


def main(argv: Sequence[str]) -> int:
    """Pre-trains with each seed, measures each, prints the table and draws it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ssl-video demo", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds (default: 1)")
    parser.add_argument("--folder", type=Path, default=None, help="where to write (default: outputs/demo/<time>)")
    given, overrides = parser.parse_known_args(argv)
    folder = given.folder or Path("outputs/demo") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    started = time.monotonic()
    results: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        run_dir = folder / f"seed_{seed}"
        code = _say_and_run("train", train.main, [f"seed={seed}", f"run_dir={run_dir}", *overrides])
        if code != 0:
            return code
        for label in LABELS:
            for protocol in PROTOCOLS:
                result_dir = run_dir / "evaluations" / f"{protocol}_{label}"
                code = _say_and_run(
                    "evaluate",
                    evaluate.main,
                    [
                        f"checkpoint={run_dir}",
                        f"evaluation={protocol}",
                        f"dataset.label={label}",
                        f"seed={seed}",
                        f"run_dir={result_dir}",
                    ],
                )
                if code != 0:
                    return code
                results.append(json.loads((result_dir / "metrics.json").read_text()))
    table = _table(results)
    write_json(folder / "table.json", {"seeds": given.seeds, "top1": table})
    print("\n" + format_table(table, seeds=given.seeds))
    picture = folder / "demo.png"
    _draw(picture, table, [folder / f"seed_{seed}" / "metrics.csv" for seed in range(given.seeds)])
    print(f"\nRun folder: {folder}\nPicture:    {picture}\n{(time.monotonic() - started) / 60:.1f} minutes")
    return 0


def _say_and_run(word: str, command: Any, overrides: list[str]) -> int:
    print(f"\n$ python {word}.py {shlex.join(overrides)}", flush=True)
    return int(command(overrides))


def _table(results: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Top-1 per row and column, one value a seed."""
    table: dict[str, dict[str, list[float]]] = {"random": {}, "pre-trained": {}}
    for result in results:
        column = f"{result['label']} {result['protocol']}"
        table["random"].setdefault(column, []).append(result["baselines"]["random"]["top1"])
        table["pre-trained"].setdefault(column, []).append(result["metrics"]["top1"])
    return table


def format_table(table: dict[str, dict[str, list[float]]], *, seeds: int) -> str:
    """Mean (and deviation over seeds) of each cell, in per cent."""
    columns = list(table["random"])
    width = max(map(len, columns))
    lines = [
        f"top-1 accuracy on held-out videos, %, {seeds} seed{'s' if seeds > 1 else ''}",
        f"{'backbone':<12}" + "".join(f"  {column:>{width}}" for column in columns),
    ]
    for row, cells in table.items():
        texts = [
            f"{100 * np.mean(v):.1f}" + (f" ± {100 * np.std(v, ddof=1):.1f}" if seeds > 1 else "")
            for v in cells.values()
        ]
        lines.append(f"{row:<12}" + "".join(f"  {text:>{width}}" for text in texts))
    return "\n".join(lines)


def _draw(path: Path, table: dict[str, dict[str, list[float]]], curves: list[Path]) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for number, file in enumerate(curves):
        with file.open(newline="") as text:
            rows = list(csv.DictReader(text))
        left.plot(
            [int(row["step"]) for row in rows], [float(row["train/loss"]) for row in rows], label=f"seed {number}"
        )
    left.set(xlabel="step", ylabel="train/loss", title="Pre-training")
    left.legend(frameon=False)
    columns = list(table["random"])
    for number, (row, cells) in enumerate(table.items()):
        places = np.arange(len(columns)) + 0.38 * (number - 0.5)
        means = [100 * float(np.mean(cells[column])) for column in columns]
        bars = right.bar(places, means, width=0.36, label=row, color=("#b8b8b8", "#2b6cb0")[number])
        right.bar_label(bars, fmt="%.0f")
    right.set_xticks(np.arange(len(columns)), [column.replace(" ", "\n") for column in columns])
    right.set(ylabel="top-1 accuracy, %", ylim=(0, 105), title="Frozen features, held-out videos")
    right.legend(frameon=False, loc="upper left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
