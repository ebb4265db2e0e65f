"""Several processes for an evaluation: features are extracted by all of them, everything else is done by the first.

They are started as those of a training run: by Lightning, which repeats the command line, or from outside (torchrun,
srun). They stay joined until they end, since an evaluation may extract several times (once for each official split).
"""

from __future__ import annotations

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from omegaconf import DictConfig

from ssl_video.cli.parts import share_cores
from ssl_video.cli.rank_watch import watch_processes
from ssl_video.cli.strategies import environment_plugins, num_processes, refuse_other_number

# The others wait while the first one fits its probes or trains.
LONGEST_WAIT = timedelta(days=7)


def join_processes(config: DictConfig) -> torch.device:
    """Starts and joins the other processes that ``trainer.devices`` and ``trainer.num_nodes`` ask for, the first time.

    ``utils.distributed`` speaks of them from then on.

    Returns:
        The device of this process.

    Raises:
        InputError: another number of processes was started from outside.
    """
    on_gpu = config.trainer.accelerator == "gpu"
    if dist.is_available() and dist.is_initialized():
        return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    several = num_processes(config) > 1
    refuse_other_number(config)
    watch_processes()
    if not several and not on_gpu:
        return torch.device("cpu")
    backend = config.strategy.get("process_group_backend") if "strategy" in config else None
    fabric = Fabric(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        num_nodes=config.trainer.num_nodes,
        strategy=DDPStrategy(process_group_backend=backend, timeout=LONGEST_WAIT) if several else "auto",
        plugins=environment_plugins(),
    )
    given_threads = os.environ.get("OMP_NUM_THREADS")
    fabric.launch()
    if several:
        atexit.register(_leave)
        # Lightning divides the cores among the processes for good. Here the first one computes alone in the end, with
        # as many threads as if it were alone, so that its sums are the same to the last bit.
        if given_threads is None:
            os.environ.pop("OMP_NUM_THREADS", None)
            share_cores(config, processes=1)
    return fabric.device


def threads_of_one(config: DictConfig) -> int:
    """Threads for this process while all of a machine's processes compute."""
    per_machine = num_processes(config) // int(config.trainer.num_nodes)
    return max(1, torch.get_num_threads() // per_machine)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
