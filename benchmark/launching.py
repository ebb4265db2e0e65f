"""Seconds from a command to its first step, from SIGTERM to its end, and for a checkpoint of a gigabyte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from benchmark.blocks import Spread, interleaved
from ssl_video.utils.checkpoint import AtomicCheckpointIO, read_checkpoint

TOLD = "step done:"
GIGABYTE = 10**9
REPOSITORY = Path(__file__).resolve().parents[1]


class TellSteps(pl.Callback):
    """Says on a line of its own when a step is done; ``+callbacks.tell._target_=benchmark.launching.TellSteps``."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Says it."""
        print(TOLD, trainer.global_step, flush=True)


class TimedRun:
    """A training run as a user starts it, whose steps are seen as they happen.

    Args:
        run_dir: its folder.
        overrides: further ones.

    Attributes:
        began: when it was started, by the monotonic clock.
    """

    def __init__(self, run_dir: Path, overrides: Sequence[str] = ()) -> None:
        own = [f"run_dir={run_dir}", f"+callbacks.tell._target_={__name__}.TellSteps"]
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "train.py", *own, *overrides],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )

    def seconds_to_step(self, step: int) -> float:
        """Waits until a step is done; seconds since the start.

        Raises:
            RuntimeError: the run ended before.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(TOLD) and int(line.removeprefix(TOLD)) >= step:
                return time.monotonic() - self.began
        raise RuntimeError(f"the run ended with {self._process.wait()} before step {step}.")

    def seconds_to_end(self, sign: signal.Signals) -> tuple[float, int]:
        """Sends a signal and waits for the end: seconds, and the exit code."""
        began = time.monotonic()
        self._process.send_signal(sign)
        self._process.communicate()
        return time.monotonic() - began, self._process.returncode


def launch_and_end(*, rounds: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Seconds from the command to the first step, of one step, and from SIGTERM, sent at any moment, to the end.

    Args:
        rounds: runs.
        overrides: of each.
    """
    firsts, steps, ends, codes = [], [], [], set()
    chance = random.Random(0)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            run = TimedRun(Path(folder) / "run", overrides)
            firsts.append(run.seconds_to_step(1))
            steps.append((run.seconds_to_step(11) - firsts[-1]) / 10)
            time.sleep(chance.random() * steps[-1])
            seconds, code = run.seconds_to_end(signal.SIGTERM)
            ends.append(seconds)
            codes.add(code)
            if not (Path(folder) / "run" / "checkpoints" / "last.ckpt").is_file():
                raise RuntimeError("SIGTERM ended the run without a checkpoint.")
    return {
        "seconds from the command to the first step": Spread.of(firsts),
        "seconds of a step": Spread.of(steps),
        "seconds from SIGTERM to the end, checkpoint written": Spread.of(ends),
        "exit codes": sorted(codes),
    }


def checkpoint_seconds(*, rounds: int, size: int = GIGABYTE) -> dict[str, Any]:
    """Seconds to write and to read a checkpoint, per gigabyte, ours beside ``torch.save`` and ``torch.load`` alone.

    Ours also forces the file to the disk, renames it, and verifies every checksum when it reads.

    Args:
        rounds: of each.
        size: bytes of the checkpoint.
    """
    state = {"state_dict": {f"layer.{number}": torch.randn(size // 4 // 50) for number in range(50)}}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        ours, bare = Path(folder) / "ours.ckpt", Path(folder) / "bare.ckpt"

        def save(_: int) -> int:
            AtomicCheckpointIO().save_checkpoint(state, ours)
            return 1

        def save_bare(_: int) -> int:
            torch.save(state, bare)
            return 1

        def load(_: int) -> int:
            read_checkpoint(ours)
            return 1

        def load_bare(_: int) -> int:
            torch.load(bare, weights_only=True)
            return 1

        contenders = {"write": save, "torch.save": save_bare, "load": load, "torch.load": load_bare}
        blocks = interleaved(contenders, rounds=rounds)
    scale = size / GIGABYTE
    return {
        f"seconds to {name} a gigabyte": Spread.of([block.wall_seconds / scale for block in own])
        for name, own in blocks.items()
    }
