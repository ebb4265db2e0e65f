"""One process of a scaling measurement; ``benchmark/scaling.py`` starts as many as it wants by torchrun.

The trainer is that of ``train.py`` on input that is already there. Blocks of steps take turns: joined, and each process
for itself, without any word to the others, on the same cores at the same time. The difference is what talking costs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import nn

from benchmark.step import Preloaded, composed, synthetic_batch
from ssl_video.cli.parts import build_checked, quiet
from ssl_video.cli.trainer import build_trainer
from ssl_video.data.batch import ClipBatch
from ssl_video.modules.sync_batch_norm import SyncBatchNorm
from ssl_video.utils import distributed
from ssl_video.utils.run import Job, write_json

NEVER = 10**9
FLOAT, DOUBLE, INTEGER = 4, 8, 8  # bytes


class TakeTurns(pl.Callback):
    """Joined blocks of steps by turns with blocks in which no process knows of the others.

    Args:
        steps: of a block.

    Attributes:
        seconds: wall time of a step, by kind of block, without the first block of each.
        bytes_sent: over the loopback by all processes in a step, likewise.
    """

    def __init__(self, *, steps: int) -> None:
        self.steps = steps
        self.seconds: dict[str, list[float]] = {"joined": [], "alone": []}
        self.bytes_sent: dict[str, list[float]] = {"joined": [], "alone": []}
        self._is_running = distributed._is_running
        self._warm: set[str] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins joined."""
        self._kind = "joined"
        self._begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends the block if it is time, and begins one of the other kind."""
        if (batch_idx + 1) % self.steps:
            return
        self._barrier()
        seconds = (time.perf_counter() - self._began) / self.steps
        sent = (loopback_bytes() - self._sent) / self.steps
        if self._kind in self._warm:
            self.seconds[self._kind].append(seconds)
            self.bytes_sent[self._kind].append(sent)
        self._warm.add(self._kind)
        self._kind = "alone" if self._kind == "joined" else "joined"
        joined = self._kind == "joined"
        distributed._is_running = self._is_running if joined else _never
        # DDP's own switch for steps whose gradients are not exchanged yet.
        if hasattr(trainer.strategy.model, "require_backward_grad_sync"):
            trainer.strategy.model.require_backward_grad_sync = joined  # type: ignore[union-attr]
        self._begin()

    def _begin(self) -> None:
        self._barrier()
        self._sent = loopback_bytes()
        self._began = time.perf_counter()

    def _barrier(self) -> None:
        if dist.is_initialized():
            dist.barrier()


def _never() -> bool:
    return False


def loopback_bytes() -> int:
    """Sent over the loopback by all of this machine since it started."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))


def least_bytes(method: Any, batch: ClipBatch, *, processes: int) -> dict[str, int]:
    """The least that all processes together must send in a step, by what it is.

    A sum over processes: each value leaves a process twice, but for one process (once to be summed, once as the sum). A
    gathering: each process's rows go to all others. Clips that are shuffled go to one other process, or stay.

    Args:
        method: MoCo or CVRL.
        batch: one process's.
        processes: how many there are.
    """
    others = processes - 1
    embeddings = batch.num_clips * _out_features(method.projector)
    trained = sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)
    parts = {"gradients": 2 * others * FLOAT * trained}
    if type(method).__name__ == "MoCo":
        videos = batch.num_clips * INTEGER
        parts["keys and their videos"] = processes * others * (FLOAT * embeddings + videos)
        parts["clips, shuffled, and their keys back"] = others * FLOAT * (batch.clips.numel() + embeddings)
    else:
        sums = sum(2 * module.num_features + 1 for module in method.modules() if isinstance(module, SyncBatchNorm))
        parts["embeddings, and their gradients"] = 2 * processes * others * FLOAT * embeddings
        # Forward and backward.
        parts["sums of batch norm"] = 2 * 2 * others * DOUBLE * sums
    return parts


def _out_features(projector: nn.Module) -> int:
    return [module.out_features for module in projector.modules() if isinstance(module, nn.Linear)][-1]


def main() -> int:
    """Measures and, on the first process, writes what was found as JSON; returns the exit code."""
    quiet()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True, help="videos of each process")
    parser.add_argument("--blocks", type=int, required=True, help="of each kind, after one that warms up")
    parser.add_argument("--steps", type=int, required=True, help="of a block")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    num_steps = 2 * (given.blocks + 1) * given.steps
    config = composed(
        [
            f"method={given.method}",
            f"batch_size={given.batch_size}",
            f"trainer.devices={given.processes}",
            f"trainer.max_steps={num_steps}",
            f"checkpoint_every_steps={NEVER}",
            *(["strategy=ddp_cpu"] if given.processes > 1 else []),
        ]
    )
    turns = measure(config, num_steps=num_steps, turns=TakeTurns(steps=given.steps))
    if turns is not None:
        write_json(given.output, turns)
    return 0


def measure(config: Any, *, num_steps: int, turns: TakeTurns) -> dict[str, Any] | None:
    """Trains by turns; what was found, on the first process."""
    method, datamodule = build_checked(config)
    batch = synthetic_batch(datamodule, config.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(choices={"backbone": "backbone"}, overrides=[], sweep_dir=None, number=0)
        trainer: Any = build_trainer(config, job, Path(folder), datamodule)
        preloaded: Any = Preloaded(batch, num_steps)
        datamodule.train_dataloader = lambda: preloaded  # type: ignore[method-assign]
        trainer.callbacks.append(turns)
        trainer.fit(method, datamodule=datamodule)
    if not trainer.is_global_zero:
        return None
    least = least_bytes(method, batch, processes=trainer.world_size)
    return {"seconds": turns.seconds, "bytes_sent": turns.bytes_sent, "least_bytes": least}


if __name__ == "__main__":
    sys.exit(main())
