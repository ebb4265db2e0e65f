"""``make bench``: the figures of the data path, each as a ratio within one run, as JSON and as a table.

    python -m benchmark.data_path                      # loading, many workers, training, isolation, reading, step
    python -m benchmark.data_path --memory --manifest  # also those that take some minutes more
    python -m benchmark.data_path --only loading       # one part; what the others gave before stays in the table

Contenders take turns in blocks (``benchmark/blocks.py``), so that a machine which is not quiet does not decide; CPU
time counts where work is compared and wall time where waiting is. Made videos stand for a data set's (``videos.py``);
they are kept in ``outputs/data_path``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmark.blocks import Spread, speedup
from benchmark.end_to_end import end_to_end
from benchmark.figures import Figure, format_details, format_table
from benchmark.isolation import isolation
from benchmark.loading import Files, make_files, many_workers, our_config, per_core
from benchmark.manifest_size import manifest_size
from benchmark.reading import reading
from benchmark.step import METHODS, compare, composed, device_name
from benchmark.worker_memory import worker_memory
from ssl_video.cli.parts import build_reader, quiet
from ssl_video.utils.run import environment, write_json

HERE = Path(__file__).parent
MADE = Path("outputs/data_path")
PARTS = ("loading", "workers", "training", "isolation", "reading", "step")
LONGER_PARTS = ("memory", "manifest")
Results = dict[str, dict[str, Any]]


def main() -> int:
    """Measures what is asked for and writes it; returns the exit code."""
    quiet()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=(*PARTS, *LONGER_PARTS), help="parts to measure (default: all)")
    parser.add_argument("--memory", action="store_true", help="also a worker's memory over 20,000 clips (minutes)")
    parser.add_argument("--manifest", action="store_true", help="also a manifest of a million rows (minutes)")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each contender (default: 5)")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of results/ and DATA_PATH.md")
    given = parser.parse_args()
    parts = given.only or [*PARTS, *(["memory"] if given.memory else []), *(["manifest"] if given.manifest else [])]
    work = measurements(make_files(MADE), rounds=given.rounds)
    file = given.output / "results" / "data_path.json"
    where = {**environment("cpu"), "device": device_name(), "cores": os.cpu_count()}
    for part in parts:
        results = read_results(file) | {part: {**where, **measured(work[part])}}
        results = {name: results[name] for name in (*PARTS, *LONGER_PARTS) if name in results}
        write_json(file, results)
        (given.output / "DATA_PATH.md").write_text(format_page(results))
        print(format_table(figures_of(results[part])), flush=True)
    return 0


def measurements(files: Files, *, rounds: int) -> Mapping[str, Callable[[], list[Figure]]]:
    """What measures each part."""
    folders = {"stock": files.stock, "prepared": files.prepared}
    return {
        "loading": partial(per_core, files, rounds=rounds),
        "workers": partial(many_workers, files, rounds=rounds),
        "training": lambda: [end_to_end(files.prepared, rounds=rounds, steps=30)],
        "isolation": lambda: isolation(folders, build_reader(our_config(files.stock, num_workers=0)), rounds=rounds),
        "reading": partial(reading, folders, rounds=rounds),
        "step": partial(step_figures, rounds=rounds),
        "memory": lambda: [worker_memory(files.prepared)],
        "manifest": partial(manifest_size, MADE / "manifest", rounds=max(1, rounds // 2)),
    }


def measured(measure: Callable[[], list[Figure]]) -> dict[str, Any]:
    """The figures of one part, as JSON, and how busy the machine was with other work before."""
    load, started = os.getloadavg()[0], time.monotonic()
    figures = measure()
    gc.collect()  # ends the workers of loaders that are done
    return {
        "load_average_before": round(load, 1),
        "seconds": round(time.monotonic() - started, 1),
        "figures": [figure.as_json() for figure in figures],
    }


def read_results(file: Path) -> Results:
    """What earlier runs wrote, by part."""
    if not file.exists():
        return {}
    results: Results = json.loads(file.read_text())
    return results


def figures_of(part: Mapping[str, Any]) -> list[Figure]:
    """The figures of one part of the results."""
    return [Figure.of_json(content) for content in part["figures"]]


def step_figures(*, rounds: int, methods: Sequence[str] = METHODS, steps_of_round: int = 10) -> list[Figure]:
    """Our step against a bare loop, by method, in turns step by step: single ones differ by a fifth."""
    accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    figures = []
    for method in methods:
        turns = compare(
            composed([f"method={method}", f"trainer={accelerator}"]), blocks=rounds * steps_of_round, steps=1
        )
        figures.append(
            Figure(
                what=f"training step of {method} on synthetic input, time",
                against="a bare loop of the same model and loss",
                bound="most",
                reach=1.05,
                value=speedup(turns.bare, turns.ours, "cpu"),
                wall=speedup(turns.bare, turns.ours, "wall"),
                details={
                    "ours, ms": 1e3 * _seconds(turns.ours),
                    "bare, ms": 1e3 * _seconds(turns.bare),
                },
            )
        )
    return figures


def _seconds(blocks: Sequence[Any]) -> float:
    return Spread.of([block.seconds_per_sample("wall") for block in blocks]).median


def format_page(results: Results) -> str:
    """``DATA_PATH.md``: the table, what explains it, and where each part of it was measured."""
    figures = [figure for part in results.values() for figure in figures_of(part)]
    lines = [
        "# The data path in figures\n",
        "Made by `make bench`; do not edit. Ratios within one run: contenders take turns in blocks, the median over",
        "the rounds counts, and the range is that of the rounds (of single steps where steps are compared). CPU time",
        "is that of all processes. *For the device*: clips leave the loader as uint8, as for training on a GPU; *in",
        "the worker*: finished as float32, as on a CPU.",
        "The other loaders are re-created in `benchmark/peers.py`, on the same frames of the same files.\n",
        format_table(figures),
        "\n## What explains them\n",
        format_details(figures),
        "\n## Where they were measured\n",
    ]
    lines += [f"- {name}: {_measured_where(part)}" for name, part in results.items()]
    return "\n".join(lines) + "\n"


def _measured_where(part: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    return (
        f"`{part['command']}` at revision {part['git_revision']} on {part['device']}; others' load "
        f"{part['load_average_before']:g} of {part['cores']} cores when it began; {part['seconds']:.0f} s; "
        f"Python {part['python']}, {versions}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
