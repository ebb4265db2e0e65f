"""Folders of tiny videos for tests of the data module and the command line, and the command line itself."""

import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from support.videos import write_video

REPOSITORY = Path(__file__).resolve().parent.parent.parent

# What makes a run small: seconds on one core.
SMALL = (
    "batch_size=4",
    "dataset.num_workers=0",
    "transform.size=32",
    "input_transform.resize=32",
    "input_transform.crop=32",
    "method.queue_length=32",
    "method.hidden_features=32",
    "sampler.num_frames=4",
    "reader.isolate=false",
)


def numbered_folder(root: Path, *, videos: int = 20, num_frames: int = 30, size: int = 40) -> Path:
    """Videos whose frames show their numbers, without labels."""
    for number in range(videos):
        write_video(root / f"video_{number:02d}.mp4", num_frames=num_frames + number % 3, height=size, width=size)
    return root


def labelled_folder(root: Path, *, videos: int = 20, num_frames: int = 24) -> Path:
    """Videos of two classes that any features tell apart (dark, bright), with labels.csv."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(videos):
        label = ("dark", "bright")[number % 2]
        level = 40 if label == "dark" else 200
        frames = np.clip(level + 20 * rng.standard_normal((num_frames, 40, 40, 3)), 0, 255).astype(np.uint8)
        write_video(root / f"video_{number:02d}.mp4", frames=frames)
        rows.append({"path": f"video_{number:02d}.mp4", "label": label, "group": str(number // 4)})
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def run_command(script: str, arguments: Sequence[str], *, folder: Path, timeout: float = 240) -> tuple[int, str]:
    """Runs train.py or evaluate.py in a process of its own; exit code and all output."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / script), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def read_metrics(run_dir: Path) -> list[dict[str, str]]:
    """Rows of a run's metrics.csv."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
