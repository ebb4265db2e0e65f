"""What a training step costs beside a bare PyTorch loop of the same model and loss, on input that is already there.

    python -m benchmark.step                                     # MoCo, VCOP and CVRL at the demo's size
    python -m benchmark.step --large                             # on R3D-18; on a GPU with clips of 16x112x112
    python -m benchmark.step --methods moco batch_size=8         # whatever the command line of train.py takes

Our step runs in the trainer that ``train.py`` builds, with the callbacks of a real run (metrics, checkpoints, progress,
failures). After every few steps its last callback lets the bare loop do as many, so that both have the same minutes of
a machine that may not be quiet; ratios are taken block by block. On a GPU each block ends when the device is done.

The last column is the share of the matrix rate that our step keeps busy: the operations of the model's convolutions and
matrix products, counted by torch, over wall clock and over the rate of a large matrix product measured in the same run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

from benchmark.bare_steps import LOSSES, BareStep
from benchmark.blocks import Block, Spread, speedup
from ssl_video.cli.parts import PROVIDED, TrainSettings, build_checked, quiet
from ssl_video.cli.trainer import build_trainer
from ssl_video.data.batch import ClipBatch
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.utils.config import compose_checked
from ssl_video.utils.run import Job

METHODS = tuple(sorted(kind.__name__.lower() for kind in LOSSES))
SIZES = {
    "moco": ["transform.size=112"],
    "cvrl": ["transform.views.first.size=112", "transform.views.second.size=112"],
    "vcop": ["transform.resize=[128,171]", "transform.crop=112", "sampler.gap_frames=0"],
}


def main() -> int:
    """Prints one row per method; returns the exit code."""
    quiet()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--blocks", type=int, default=40, help="of each kind (default: 40)")
    parser.add_argument("--steps", type=int, default=1, help="of a block (default: 1)")
    parser.add_argument("--large", action="store_true", help="R3D-18 instead of the demo's network")
    overrides = [word for word in sys.argv[1:] if "=" in word]
    given = parser.parse_args([word for word in sys.argv[1:] if word not in overrides])
    device = "gpu" if torch.cuda.is_available() else "cpu"
    print(f"{device_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| method | our step, ms | bare step, ms | CPU time, ours / bare | wall clock, ours / bare | matrix rate |")
    print("|---|---|---|---|---|---|")
    for name in given.methods:
        large = large_overrides(name, device) if given.large else []
        config = composed([f"method={name}", f"trainer={device}", *large, *overrides])
        print(row(name, compare(config, blocks=given.blocks, steps=given.steps)), flush=True)
    return 0


def large_overrides(method: str, device: str) -> list[str]:
    """A larger network; on a GPU clips of the size of papers too, and enough of them."""
    gpu = ["sampler.num_frames=16", "batch_size=24", *SIZES[method]]
    return ["backbone=r3d_18", *(gpu if device == "gpu" else ["batch_size=4"])]


def composed(overrides: Sequence[str]) -> DictConfig:
    """The training configuration of some overrides."""
    return compose_checked("train", overrides, provided=PROVIDED, settings=TrainSettings)


def device_name() -> str:
    """The GPU, or the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = [line.split(":")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return f"{names[0].strip()}, {len(names)} cores" if names else "CPU"


def row(name: str, turns: TakeTurns) -> str:
    """One line of the table."""
    seconds = [
        Spread.of([block.seconds_per_sample("wall") for block in own]).median for own in (turns.ours, turns.bare)
    ]
    cells = [f"{1e3 * own:.1f}" for own in seconds]
    for measure in ("cpu", "wall"):
        ratio = speedup(turns.bare, turns.ours, measure)
        cells.append(f"{ratio.median:.3f} ({ratio.low:.3f}–{ratio.high:.3f})")
    cells.append(f"{turns.flops / seconds[0] / turns.matrix_rate:.0%} of {turns.matrix_rate / 1e12:.2f} TFLOP/s")
    return f"| {name} | {' | '.join(cells)} |"


def compare(config: DictConfig, *, blocks: int, steps: int) -> TakeTurns:
    """Trains in our trainer and in a bare loop by turns; the first block of each only warms up."""
    method, datamodule = build_checked(config)
    config.trainer.max_steps = (blocks + 1) * steps
    batch = synthetic_batch(datamodule, config.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        choices = {"method": "method", "backbone": "backbone", "dataset": "synthetic"}
        job = Job(choices=choices, overrides=[], sweep_dir=None, number=0)
        trainer: Any = build_trainer(config, job, Path(folder), datamodule)
        batch = batch.to(trainer.strategy.root_device)
        preloaded: Any = Preloaded(batch, (blocks + 1) * steps)
        datamodule.train_dataloader = lambda: preloaded  # type: ignore[method-assign]
        turns = TakeTurns(batch, steps=steps)
        trainer.callbacks.append(turns)
        trainer.fit(method, datamodule=datamodule)
    return turns


def synthetic_batch(datamodule: VideoDataModule, batch_size: int) -> ClipBatch:
    """Noise of the shape of a training batch."""
    views, frames = datamodule.sampler.num_views, datamodule.sampler.num_frames
    size = datamodule.transform(torch.zeros(views, frames, 128, 171, 3, dtype=torch.uint8)).shape[-2:]
    generator = torch.Generator().manual_seed(0)
    return ClipBatch(
        clips=torch.randn(batch_size, views, 3, frames, *size, generator=generator),
        indices=torch.arange(frames).expand(batch_size, views, frames),
        labels=torch.full((batch_size,), -1),
        rows=torch.zeros(batch_size, dtype=torch.int64),
        videos=torch.arange(batch_size),
        positions=torch.arange(batch_size),
    )


@dataclass(frozen=True)
class Preloaded:
    """A loader that gives one batch again and again."""

    batch: ClipBatch
    number: int

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[ClipBatch]:
        for _ in range(self.number):
            yield self.batch


@dataclass
class TakeTurns(pl.Callback):
    """After every block of our steps a block of bare ones.

    Attributes:
        batch: of both.
        steps: of a block.
        ours: our blocks, without the first.
        bare: those of the bare loop.
        flops: operations of one step, a multiplication and an addition counting two.
        matrix_rate: operations a second of a large matrix product.
    """

    batch: ClipBatch
    steps: int
    ours: list[Block] = field(default_factory=list)
    bare: list[Block] = field(default_factory=list)
    flops: float = 0.0
    matrix_rate: float = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copies the network as it is before the first step."""
        autocast = torch.bfloat16 if str(trainer.precision) == "bf16-mixed" else None
        self.bare_step = BareStep(pl_module, clips=self.batch.clips, videos=self.batch.videos, autocast=autocast)
        with FlopCounterMode(display=False) as counter:
            self.bare_step()
        self.flops = counter.get_total_flops()
        self.matrix_rate = matrix_rate(self.batch.clips.device, autocast or torch.float32)
        self.done = 0
        self._began = _clocks()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends the block if it is time."""
        self.done += 1
        if self.done % self.steps:
            return
        ours = self._block()
        self._began = _clocks()
        for _ in range(self.steps):
            self.bare_step()
        bare = self._block()
        if self.done > self.steps:
            self.ours.append(ours)
            self.bare.append(bare)
        self._began = _clocks()

    def _block(self) -> Block:
        cpu, wall = (now - before for now, before in zip(_clocks(), self._began, strict=True))
        return Block(self.steps, cpu, wall)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a square matrix product that is large for the device, the best of some."""
    side, rounds = (8192, 20) if device.type == "cuda" else (1536, 5)
    left, right = torch.randn(2, side, side, device=device).to(dtype).unbind()
    seconds = []
    for _ in range(rounds):
        began = _clocks()[1]
        torch.mm(left, right)
        seconds.append(_clocks()[1] - began)
    return 2 * side**3 / min(seconds)


def _clocks() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time(), time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
