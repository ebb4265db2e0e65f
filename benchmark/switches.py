"""What each switch of a training step is worth here: ``python -m benchmark.switches [method=… backbone=…]``.

Time is the CPU's (a GPU's: wall clock) of forward, backward and optimizer step on a batch that is already there; all
variants take turns, and each is set against the plain one block by block. Memory is what a process of its own grows to
beyond the size at which it begins its first step. The first step, where a compiler works, is left out of the time.

Measured on two cores of an AMD EPYC (Zen 4, AVX-512 with bf16), torch 2.15, one thread, other work beside it; CVRL at
its default size on r3d_tiny; memory of R3D-18 with 12 videos at 64 pixels. A GPU: not measured.

| switch | time / plain | first step, s | memory, MiB |
|---|---|---|---|
| plain (contiguous, float32) | 1 | 1 | 1347 |
| channels_last (the default) | 0.61 (0.57–0.70) | 1 | 1281 |
| fused optimizer | 1.02 (0.86–1.22) | 1 | |
| bf16 | 0.68 (0.60–0.69) | 1 | |
| channels_last, bf16 | 0.44 (0.36–0.52) | 1 | 976 |
| checkpoint_activations | 1.38 (1.31–2.56) | 1 | 985 |
| compile=backbone | 0.98 (0.88–1.15) | 100 | |
| compile=step | 0.98 (0.88–1.02) | 98 | |
| channels_last, compile=backbone | 0.62 (0.54–0.65) | 99 | |
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmark.blocks import interleaved, speedup
from benchmark.step import composed, device_name, synthetic_batch
from ssl_video.cli.parts import build_checked, quiet
from ssl_video.cli.speed import set_matmul_precision
from ssl_video.cli.stand_in import attach_stand_in

BASE = ["method=cvrl", "speed.memory_format=contiguous", "speed.fused_optimizer=false"]
VARIANTS = {
    "plain": [],
    "channels_last": ["speed.memory_format=channels_last"],
    "fused optimizer": ["speed.fused_optimizer=true"],
    "bf16": ["trainer.precision=bf16-mixed"],
    "channels_last, bf16": ["speed.memory_format=channels_last", "trainer.precision=bf16-mixed"],
    "checkpoint_activations": ["speed.checkpoint_activations=true"],
    "compile=backbone": ["speed.compile=backbone"],
    "compile=step": ["speed.compile=step"],
    "channels_last, compile=backbone": ["speed.memory_format=channels_last", "speed.compile=backbone"],
}
GPU_VARIANTS = {
    "compile=backbone, cuda_graphs": ["speed.compile=backbone", "speed.cuda_graphs=true"],
}
ROUNDS, STEPS = 5, 2


def main() -> int:
    """Prints the table; returns the exit code."""
    quiet()
    on_gpu = torch.cuda.is_available()
    words = [*BASE, f"trainer={'gpu' if on_gpu else 'cpu'}", "trainer.precision=32-true", *sys.argv[1:]]
    variants = {**VARIANTS, **(GPU_VARIANTS if on_gpu else {})}
    print(f"{device_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads: {' '.join(sys.argv[1:])}")
    print("| switch | time / plain | first step, s | peak memory, MiB |\n|---|---|---|---|")
    steps, first = {}, {}
    for name, own in variants.items():
        steps[name] = training_step([*words, *own])
        began = time.perf_counter()
        steps[name]()
        first[name] = time.perf_counter() - began

    def block(step: Callable[[], None]) -> Callable[[int], int]:
        def run(number: int) -> int:
            for _ in range(STEPS):
                step()
            return STEPS

        return run

    blocks = interleaved({name: block(step) for name, step in steps.items()}, rounds=ROUNDS)
    for name, own in variants.items():
        ratio = speedup(blocks["plain"], blocks[name], "wall" if on_gpu else "cpu")
        memory = in_a_process_of_its_own([*words, *own])
        print(
            f"| {name} | {ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f}) | {first[name]:.0f} | {memory:.0f} |",
            flush=True,
        )
    return 0


def training_step(overrides: Sequence[str]) -> Callable[[], None]:
    """One optimizer step of a configuration, without a trainer."""
    config = composed(overrides)
    set_matmul_precision(config)
    method, datamodule = build_checked(config)
    attach_stand_in(method, total_steps=1000, batches_per_epoch=10)
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
    method.to(device)
    optimizer: Any = method.configure_optimizers()["optimizer"]
    batch = synthetic_batch(datamodule, config.batch_size).to(device)
    mixed = config.trainer.precision == "bf16-mixed"

    def step() -> None:
        optimizer.zero_grad()
        if config.speed.cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext():
            loss = torch.stack(list(method.losses(batch).values())).sum()
        method.observed.clear()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def in_a_process_of_its_own(overrides: Sequence[str]) -> float:
    """MiB that three steps need beyond what was there before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_mib, list(overrides)).result()


def peak_mib(overrides: Sequence[str]) -> float:
    """See ``in_a_process_of_its_own``."""
    quiet()
    step = training_step(overrides)
    on_gpu = torch.cuda.is_available()
    before = torch.cuda.memory_allocated() if on_gpu else _resident_bytes("VmRSS")
    for _ in range(3):
        step()
    return ((torch.cuda.max_memory_allocated() if on_gpu else _resident_bytes("VmHWM")) - before) / 2**20


def _resident_bytes(name: str) -> int:
    """``VmRSS`` now or ``VmHWM`` at most; getrusage would count what the parent had before this process began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


if __name__ == "__main__":
    sys.exit(main())
