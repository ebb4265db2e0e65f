"""``make bench-scale``: what more processes give and cost on this machine, and how long it takes to start and to stop.

    python -m benchmark.scaling                          # all parts; results/scaling.json and SCALING.md
    python -m benchmark.scaling --only scaling --rounds 1

Two and four gloo processes, one thread each, stand against one, on input that is already there. Strong scaling keeps
the videos of all processes together, weak scaling those of each. More processes than cores cannot be faster, so beside
each rate stands that of as many processes which know nothing of each other on the same cores at the same time.
``docs/scaling.md`` says on paper what larger machines would do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmark.blocks import Spread
from benchmark.launching import REPOSITORY, checkpoint_seconds, launch_and_end
from benchmark.step import device_name
from ssl_video.utils.run import environment, write_json

HERE = Path(__file__).parent
METHODS = ("moco", "cvrl")
NUM_PROCESSES = (1, 2, 4)
BATCH_OF_ALL = 24
BATCH_OF_EACH = 8
PARTS = ("scaling", "checkpoint", "launch")
MEGABYTE = 10**6


def main() -> int:
    """Measures what is asked for and writes it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each (default: 3)")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of results/ and SCALING.md")
    given = parser.parse_args()
    work: Mapping[str, Callable[[], Any]] = {
        "scaling": partial(scaling, rounds=given.rounds),
        "checkpoint": partial(checkpoint_seconds, rounds=given.rounds),
        "launch": partial(launch_and_end, rounds=given.rounds),
    }
    file = given.output / "results" / "scaling.json"
    for part in given.only:
        where = {**environment("cpu"), "device": device_name(), "cores": os.cpu_count()}
        where |= {"load_average_before": round(os.getloadavg()[0], 1)}
        began = time.monotonic()
        found = _plain(work[part]())
        results = json.loads(file.read_text()) if file.exists() else {}
        results[part] = {**where, "seconds": round(time.monotonic() - began, 1), "found": found}
        write_json(file, {name: results[name] for name in PARTS if name in results})
        (given.output / "SCALING.md").write_text(format_page(results))
    print((given.output / "SCALING.md").read_text())
    return 0


def scaling(*, rounds: int) -> list[dict[str, Any]]:
    """One row for each method, kind of scaling and number of processes."""
    rows = []
    for method in METHODS:
        for kind in ("strong", "weak"):
            for processes in NUM_PROCESSES:
                batch = BATCH_OF_ALL // processes if kind == "strong" else BATCH_OF_EACH
                runs = [_run(method, processes=processes, batch_size=batch) for _ in range(rounds)]
                rows.append({"method": method, "kind": kind, "processes": processes, **_row(runs, processes * batch)})
                print(rows[-1], flush=True)
    return rows


def _run(method: str, *, processes: int, batch_size: int, blocks: int = 4, steps: int = 4) -> dict[str, Any]:
    """What one start measured; see ``benchmark/scaling_rank.py``."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        program = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        words = {
            "method": method,
            "processes": processes,
            "batch-size": batch_size,
            "blocks": blocks,
            "steps": steps,
            "output": output,
        }
        given = [f"--{name}={value}" for name, value in words.items()]
        subprocess.run(
            [sys.executable, *program, "-m", "benchmark.scaling_rank", *given],
            cwd=REPOSITORY,
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        )
        found: dict[str, Any] = json.loads(output.read_text())
        return found


def _row(runs: list[dict[str, Any]], videos: int) -> dict[str, Any]:
    joined = [seconds for run in runs for seconds in run["seconds"]["joined"]]
    alone = [seconds for run in runs for seconds in run["seconds"]["alone"]]
    sent = [number for run in runs for number in run["bytes_sent"]["joined"]]
    noise = [number for run in runs for number in run["bytes_sent"]["alone"]]
    return {
        "videos of a step": videos,
        "videos per second": Spread.of([videos / seconds for seconds in joined]),
        "videos per second, unjoined": Spread.of([videos / seconds for seconds in alone]),
        # Of blocks that stand beside each other.
        "share of communication": Spread.of([1 - own / both for own, both in zip(alone, joined, strict=True)]),
        "bytes sent": Spread.of(sent),
        "bytes of others meanwhile": Spread.of(noise),
        "least bytes": runs[0]["least_bytes"],
    }


def format_page(results: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    parts = [
        "# More processes, starting and stopping\n\nMeasured by `make bench-scale`; `benchmark/scaling.py` says how."
    ]
    for name, part in results.items():
        body = _scaling_table(part["found"]) if name == "scaling" else _list(part["found"])
        parts.append(
            f"## {name.capitalize()}\n\n{part['device']}, torch {part['versions']['torch']}, load before "
            f"{part['load_average_before']}, revision {part['git_revision']}.\n\n{body}"
        )
    return "\n\n".join(parts) + "\n"


def _scaling_table(rows: list[dict[str, Any]]) -> str:
    head = [
        "method",
        "scaling",
        "processes",
        "videos of a step",
        "videos per second",
        "against one process",
        "unjoined, against one",
        "communication",
        "MB sent per step",
        "against the least",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        one = next(
            other
            for other in rows
            if all(other[key] == row[key] for key in ("method", "kind")) and other["processes"] == 1
        )["videos per second"]["median"]
        least = sum(row["least bytes"].values())
        sent = row["bytes sent"]["median"] - row["bytes of others meanwhile"]["median"]
        talks = row["processes"] > 1
        cells = [
            row["method"],
            row["kind"],
            row["processes"],
            row["videos of a step"],
            _spread(row["videos per second"], ".1f"),
            f"{row['videos per second']['median'] / one:.2f}",
            f"{row['videos per second, unjoined']['median'] / one:.2f}",
            _spread(row["share of communication"], ".0%") if talks else "",
            f"{sent / MEGABYTE:.2f}" if talks else "",
            f"{sent / least:.2f}" if talks else "",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _list(found: Mapping[str, Any]) -> str:
    lines = ["| what | median | range |", "|---|---|---|"]
    for name, value in found.items():
        is_spread = isinstance(value, dict)
        cells = [f"{value['median']:.3g}", f"{value['low']:.3g} to {value['high']:.3g}"] if is_spread else [value, ""]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _spread(value: Mapping[str, float], form: str) -> str:
    return f"{value['median']:{form}} ({value['low']:{form}} to {value['high']:{form}})"


def _plain(value: Any) -> Any:
    """Without data classes, for JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, dict):
        return {name: _plain(own) for name, own in value.items()}
    return [_plain(own) for own in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
