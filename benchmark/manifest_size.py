"""What a manifest of a million videos costs a training run: time to open it and to the first batch, and memory.

The same run, as ``train.py`` builds it, is made with a manifest of ten rows and with one of a million; both are of the
same few files. Memory is the proportional set size of the main process and all below it (pages that several hold are
counted once): after some batches, and again after every part of the manifest has been looked at, which a whole epoch
comes to.

    python -m benchmark.manifest_size [--rows N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl

from benchmark.blocks import Spread
from benchmark.figures import Figure, format_details, format_table
from benchmark.videos import prepared_video
from ssl_video.cli.parts import PROVIDED, TrainSettings, build_checked, quiet
from ssl_video.cli.record import describe_start
from ssl_video.cli.trainer import build_trainer
from ssl_video.data.index import index_folder
from ssl_video.data.manifest import Manifest
from ssl_video.utils.config import compose_checked
from ssl_video.utils.run import Job

ROWS = 1_000_000
FEW_ROWS = 10
NUM_FILES = 4
NUM_CLASSES = 400
NUM_WORKERS = 8
STEPS = 20
ROWS_APART = 32  # closer than the rows that share a page of memory in any column
MB = 1e6


def manifest_size(folder: Path, *, rows: int = ROWS, rounds: int = 3) -> list[Figure]:
    """Runs training on a small and a large manifest, each in processes of its own.

    Args:
        folder: for files, manifests and runs.
        rows: of the large manifest.
        rounds: runs of each.
    """
    few, many = (_write_manifest(folder, number) for number in (FEW_ROWS, rows))
    for manifest in (few, many):
        Manifest.open(manifest, cache_dir=folder / "cache")  # its copy is made once
    pairs = [(_measured(few, folder / f"few_{n}"), _measured(many, folder / f"many_{n}")) for n in range(rounds)]
    bytes_of_copy = sum(file.stat().st_size for file in (folder / "cache").rglob("*.arrow"))
    details = {
        f"{name}, {size} rows": value
        for size, run in zip((FEW_ROWS, rows), pairs[-1], strict=True)
        for name, value in run.items()
    }

    def figure(what: str, against: str, reach: float, values: Sequence[float], unit: str, **told: Any) -> Figure:
        return Figure(what, against, "most", reach, Spread.of(values), unit=unit, details=told)

    title = f"manifest of {rows:,} videos, {NUM_WORKERS} workers"
    more = f"the same run with {FEW_ROWS} rows"
    return [
        figure(f"{title}: opening", "a clock", 2.0, [run["open_seconds"] for _, run in pairs], "s"),
        figure(f"{title}: first batch", "a clock", 10.0, [run["first_batch_seconds"] for _, run in pairs], "s"),
        figure(f"{title}: memory", more, 400.0, [b["mb"] - a["mb"] for a, b in pairs], "MB", **details),
        figure(
            f"{title}: memory when all rows were looked at",
            more,
            400.0,
            [b["mb, all rows"] - a["mb, all rows"] for a, b in pairs],
            "MB",
            mapped_copy_mb=bytes_of_copy / MB,
        ),
    ]


def _write_manifest(folder: Path, rows: int) -> Path:
    """A manifest of so many videos that are really a few files, under names as long as those of the usual data sets."""
    videos = folder / "videos"
    places = [videos / f"a_class_with_a_usual_name/video_number_{n:03d}_000010_000020.mp4" for n in range(NUM_FILES)]
    for number, place in enumerate(places):
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            prepared_video(place, number)
    small = index_folder(videos, progress=False)
    numbers = np.arange(rows)
    table = small.table.take(numbers % len(small))
    values: dict[str, list[Any]] = {
        "segment_id": [f"video_number_{number:011d}_000010_000020" for number in numbers],
        "video_id": [f"video_number_{number:011d}" for number in numbers],
        "label": [f"class {number % NUM_CLASSES}" for number in numbers],
    }
    for name, column in values.items():
        place_of = table.column_names.index(name)
        table = table.set_column(place_of, table.schema.field(name), pa.array(column))
    path = folder / f"{rows}.parquet"
    Manifest(table, root=videos).write(path)
    return path


def _measured(manifest: Path, run_dir: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmark.manifest_size", "--measure", str(manifest), str(run_dir)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    found: dict[str, float] = json.loads((run_dir / "measured.json").read_text())
    return found


def measure(manifest: Path, run_dir: Path) -> None:
    """Trains some steps as ``train.py`` does, and writes down what it took."""
    quiet()
    cache_dir = manifest.parent / "cache"
    started = time.perf_counter()
    Manifest.open(manifest, cache_dir=cache_dir)
    probe = Probe(open_seconds=time.perf_counter() - started)
    config = compose_checked(
        "train",
        [
            "method=moco",
            "dataset=manifest",
            f"dataset.source.file={manifest}",
            f"dataset.num_workers={NUM_WORKERS}",
            "batch_size=4",
            f"cache_dir={cache_dir}",
            f"trainer.max_steps={STEPS}",
            f"run_dir={run_dir}",
        ],
        provided=PROVIDED,
        settings=TrainSettings,
    )
    job = Job(
        choices={"method": "moco", "backbone": "r3d_tiny", "dataset": "manifest"},
        overrides=[],
        sweep_dir=None,
        number=0,
    )
    probe.began = time.perf_counter()
    method, datamodule = build_checked(config)
    trainer = build_trainer(config, job, run_dir, datamodule)
    describe_start(config, job, run_dir, datamodule, checkpoint=None)
    trainer.callbacks.append(probe)  # type: ignore[attr-defined]
    trainer.fit(method, datamodule=datamodule)
    (run_dir / "measured.json").write_text(json.dumps(probe.found))


class Probe(pl.Callback):
    """Looks at the clock at the first batch, and at memory in the last step, while all workers are there."""

    def __init__(self, *, open_seconds: float) -> None:
        self.began = 0.0
        self.found = {"open_seconds": open_seconds}

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """The first batch has come."""
        self.found.setdefault("first_batch_seconds", time.perf_counter() - self.began)
        self.found.setdefault("cpu_seconds_of_main_process", time.process_time())

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """In the last step."""
        if trainer.global_step < STEPS:
            return
        self.found |= {**memory(), "processes": float(len(_descendants()))}
        manifest: Manifest = trainer.datamodule.manifest  # type: ignore[attr-defined]
        for row in range(0, len(manifest), ROWS_APART):
            manifest.segment(row)
            manifest.stream_table(row)
        self.found |= {f"{name}, all rows": value for name, value in memory().items()}


def memory() -> dict[str, float]:
    """Proportional set size of this process and all below it, in MB.

    ``mb`` is what a manifest can change: memory of no file, shared memory, and the mapped copies of manifests.
    ``mb_with_libraries`` is all; what programs' files take in it follows from who else runs them on the machine.
    """
    own, copies, files = 0, 0, 0
    for process in _descendants():
        kib = {line.split(":")[0]: line.split() for line in _lines(f"/proc/{process}/smaps_rollup")[1:]}
        copies += _pss_of_copies(_lines(f"/proc/{process}/smaps"))
        own += int(kib["Pss_Anon"][1]) + int(kib["Pss_Shmem"][1])
        files += int(kib["Pss_File"][1])
    found = {"mb": own + copies, "mb_with_libraries": own + files, "mb_of_mapped_copy": copies}
    return {name: kib * 1024 / MB for name, kib in found.items()}


def _pss_of_copies(lines: Sequence[str]) -> int:
    kib, is_copy = 0, False
    for line in lines:
        if not line.split(maxsplit=1)[0].endswith(":"):  # the head of a mapping
            is_copy = line.endswith(".arrow")
        elif is_copy and line.startswith("Pss:"):
            kib += int(line.split()[1])
    return kib


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _descendants(process: int | str = "self") -> list[int | str]:
    children = Path(f"/proc/{process}/task").glob("*/children")
    return [
        process,
        *(below for file in children for child in file.read_text().split() for below in _descendants(child)),
    ]


def main() -> None:
    """Prints the figures against what is to be reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(*given.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = manifest_size(Path(folder), rows=given.rows, rounds=given.rounds)
    print(format_table(figures))
    print(format_details(figures))


if __name__ == "__main__":
    main()
