"""``make benchmark``: pre-trains every method at equal steps, measures each, and writes one table and its picture.

One result file per cell (data set, method, seed) lies in ``benchmark/results``; finished cells are skipped, and a cell
that was cut off goes on from its last checkpoint. The folders of real videos are yours to name:

    make benchmark                                              # the embedded data set
    make benchmark INTERACTIONS=/data/interactions WAGON=/data/wagon MINUTES=60 JOBS=2
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmark.cells import LABELS, OVERRIDES, Cell, all_cells, all_methods, data_overrides
from benchmark.table import write_table

HERE = Path(__file__).parent
RUNS = Path("outputs/benchmark")
TERMINATED = 143


def main() -> int:
    """Runs what is missing until the time is up, then writes the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=Path, help="folder with the labelled clips and labels.csv")
    parser.add_argument("--wagon", type=Path, help="folder with the clips and labels.csv")
    parser.add_argument("--methods", nargs="*", default=all_methods(), help="default: all")
    parser.add_argument("--steps", type=int, help="of every cell (default: as in benchmark/cells.py)")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of results/, table and pictures")
    parser.add_argument("--minutes", type=float, default=480, help="stop cleanly after so many (default: 480)")
    parser.add_argument(
        "--jobs", type=int, default=1, help="cells at a time; speeds are then those of a shared machine"
    )
    given = parser.parse_args()
    roots = {"moving_shapes": None, "interactions": given.interactions, "wagon": given.wagon}
    datasets = [name for name, root in roots.items() if name == "moving_shapes" or root is not None]
    results = given.output / "results"
    cells = all_cells(datasets, given.methods, steps=given.steps)
    missing = [cell for cell in cells if not (results / f"{cell.name}.json").exists()]
    print(f"{len(missing)} cells to run: {len(given.methods)} methods on {', '.join(datasets)}", flush=True)
    deadline = time.monotonic() + 60 * given.minutes

    def run(cell: Cell) -> int:
        target = results / f"{cell.name}.json"
        return run_cell(cell, roots[cell.dataset], target, deadline, shared=given.jobs > 1)

    with ThreadPoolExecutor(given.jobs) as pool:
        codes = list(pool.map(run, missing))
    write_table(results, given.output)
    left = sum(not (results / f"{cell.name}.json").exists() for cell in missing)
    print(f"{len(missing) - left} cells done, {left} left" + ("; run it again to go on" if left else ""))
    return 1 if any(code not in (0, TERMINATED) for code in codes) else 0


def run_cell(cell: Cell, root: Path | None, result: Path, deadline: float, *, shared: bool) -> int:
    """Trains and measures one cell, each as a process of its own; returns the exit code of the last."""
    if time.monotonic() >= deadline:
        return TERMINATED
    run = RUNS / cell.name
    data = data_overrides(cell.dataset, root)
    train = [sys.executable, "train.py", f"method={cell.method}", *data, f"seed={cell.seed}"]
    train += [f"trainer.max_steps={cell.steps}", f"run_dir={run}", "resume=auto"]
    train += OVERRIDES.get((cell.dataset, cell.method), [])
    train += ["dataset.num_workers=1"] if shared else []
    measure = [sys.executable, "-m", "benchmark.measure", str(run), "--output", str(result)]
    measure += [word for label in LABELS[cell.dataset] for word in ("--label", label)]
    for command in (train, measure):
        print(f"[{cell.name}] {shlex.join(command[1:])}", flush=True)
        code = run_until(command, deadline, log=RUNS / f"{cell.name}.log", threads=1 if shared else None)
        if code != 0:
            if code != TERMINATED:
                print(f"[{cell.name}] failed with {code}, see {RUNS / cell.name}.log", file=sys.stderr)
            return code
    return 0


def run_until(command: list[str], deadline: float, *, log: Path, threads: int | None) -> int:
    """Runs a command, and asks it to end at the deadline: a training then keeps its last checkpoint."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with log.open("a") as text:
        process = subprocess.Popen(command, stdout=text, stderr=subprocess.STDOUT, env=environment)
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), process.send_signal, [signal.SIGTERM])
        timer.start()
        try:
            code = process.wait()
        finally:
            timer.cancel()
    return TERMINATED if code == -signal.SIGTERM else code


if __name__ == "__main__":
    sys.exit(main())
