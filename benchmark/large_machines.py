"""On paper: what 8, 64 and 512 GPUs would do. Writes ``docs/scaling.md``; nothing of it was run on such a machine.

    python -m benchmark.large_machines

Operations, parameters and bytes are counted from the very configurations that an experiment runs; what a core decodes
is read from the results of ``make bench``. What cannot be counted or measured here (a GPU's rate, a network's, a file's
size) is an assumption, and stands as one in a table of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

from benchmark.scaling_rank import FLOAT, INTEGER
from benchmark.step import composed
from ssl_video.cli.parts import StartingWeights
from ssl_video.utils.config import build, plain
from ssl_video.utils.run import write_text

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "scaling.md"
NUM_GPUS = (8, 64, 512)
CROP = 224

# Assumptions.
VIDEOS = 240_000  # Kinetics-400's training part, as papers round it
PEAK = 989e12  # operations a second: NVIDIA's data sheet of the H100 SXM, bfloat16, dense
UTILISATION = 0.15  # of that peak; ours is not measured on a GPU
LINK = 25e9  # bytes a second that a GPU sends in a sum over all: half of a 400 Gbit/s card
BYTES_PER_VIDEO = 771e3  # 10 s at 340x256, keyframe every 250 frames: the mean of the files that `make bench` makes


@dataclass(frozen=True)
class Job:
    """What one GPU does in a step of a method.

    Attributes:
        name: of the experiment.
        videos: of a GPU's batch.
        epochs: of the run.
        operations: a multiplication and an addition count two.
        parameters: that are trained.
        embedding_bytes: of the rows that the loss gathers.
        clip_bytes: of clips that change the rank.
    """

    name: str
    videos: int
    epochs: int
    operations: float
    parameters: int
    embedding_bytes: int
    clip_bytes: int


def main() -> int:
    """Writes the page; returns the exit code."""
    jobs = [cvrl_job(), moco_job()]
    loading = json.loads((HERE / "results" / "data_path.json").read_text())["loading"]
    write_text(PAGE, page(jobs, loading))
    print(PAGE.read_text())
    return 0


def cvrl_job() -> Job:
    """Two clips of each video, each forward and backward; embeddings are gathered."""
    config = composed(["experiment=cvrl_r3d_50_kinetics400"])
    forward, parameters, _ = backbone_costs(config)
    return Job(
        name="cvrl_r3d_50_kinetics400",
        videos=config.batch_size,
        epochs=config.trainer.max_epochs,
        operations=config.batch_size * 2 * 3 * forward,  # the backward pass is twice the forward
        parameters=parameters,
        embedding_bytes=config.batch_size * 2 * config.method.embedding_dim * FLOAT,
        clip_bytes=0,
    )


def moco_job() -> Job:
    """Two clips of each video, each a query (forward and backward) and a key (forward, on another rank)."""
    config = composed(["experiment=moco_slow_r50_kinetics400"])
    forward, parameters, clip = backbone_costs(config)
    clips = config.batch_size * 2
    return Job(
        name="moco_slow_r50_kinetics400",
        videos=config.batch_size,
        epochs=config.trainer.max_epochs,
        operations=clips * (3 + 1) * forward,
        parameters=parameters,
        embedding_bytes=clips * (config.method.embedding_dim * FLOAT + INTEGER),
        clip_bytes=clips * clip * FLOAT,
    )


def backbone_costs(config: DictConfig) -> tuple[float, int, int]:
    """Operations of one clip's forward pass, parameters, and values of a clip; nothing is computed."""
    node = {key: value for key, value in plain(config.backbone).items() if key not in StartingWeights.__annotations__}
    with torch.device("meta"):
        backbone = build(node)
        clip = torch.empty(1, 3, config.sampler.num_frames, CROP, CROP)
        with FlopCounterMode(display=False) as counter:
            backbone(clip)
    return float(counter.get_total_flops()), sum(own.numel() for own in backbone.parameters()), clip.numel()


def step_seconds(job: Job) -> float:
    """Of computing alone."""
    return job.operations / (PEAK * UTILISATION)


def sum_bytes(job: Job, gpus: int) -> float:
    """That a GPU sends so that all have the sum of the gradients."""
    return 2 * (gpus - 1) / gpus * FLOAT * job.parameters


def gather_bytes(job: Job, gpus: int) -> float:
    """That a GPU sends so that all have its embeddings, and its clips are where they are encoded."""
    return (gpus - 1) * job.embedding_bytes + (gpus - 1) / gpus * job.clip_bytes


def row(job: Job, gpus: int, per_core: dict[str, float]) -> list[str]:
    """One line of the table."""
    computing = step_seconds(job)
    sums, gathers = sum_bytes(job, gpus) / LINK, gather_bytes(job, gpus) / LINK
    # Gradients are summed while others are still computed, in the last two thirds of a step; gathering is waited for.
    seconds = computing + gathers + max(0.0, sums - computing * 2 / 3)
    videos = gpus * job.videos / seconds
    hours = VIDEOS * job.epochs / videos / 3600
    return [
        job.name,
        f"{gpus}",
        f"{gpus * job.videos}",
        f"{1e3 * computing:.0f}",
        f"{sum_bytes(job, gpus) / 1e6:.0f}",
        f"{gather_bytes(job, gpus) / 1e6:.1f}",
        f"{1e3 * seconds:.0f}",
        f"{videos:,.0f}",
        *(f"{videos / gpus / rate:.0f}" for rate in per_core.values()),
        f"{videos * BYTES_PER_VIDEO / 1e9:.2f}",
        f"{hours:.1f}",
    ]


def page(jobs: Sequence[Job], loading: dict[str, Any]) -> str:
    """The page."""
    per_core = {
        kind: figure["details"]["ours, samples per second of CPU"]
        for kind in ("stock", "prepared")
        for figure in loading["figures"]
        if figure["what"] == f"loader, per core: ours for the device, {kind}" and figure["against"].startswith("usual,")
    }
    head = [
        "experiment",
        "GPUs",
        "videos of a step",
        "computing, ms",
        "gradients sent by a GPU, MB",
        "gathered, MB",
        "step, ms",
        "videos/s",
        *(f"cores per GPU, {kind}" for kind in per_core),
        "storage, GB/s",
        "hours of the run",
    ]
    rows = [row(job, gpus, per_core) for job in jobs for gpus in NUM_GPUS]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])
    counted = "\n".join(
        f"| {job.name} | {job.operations / job.videos / 1e12:.2f} | {job.parameters / 1e6:.1f} | "
        f"{job.embedding_bytes / 1e3:.1f} | {job.clip_bytes / 1e6:.1f} |"
        for job in jobs
    )
    hidden = max(sum_bytes(job, NUM_GPUS[-1]) / LINK / step_seconds(job) for job in jobs)
    return TEXT.format(table=table, counted=counted, crop=CROP, hide=f"{hidden:.0%}", **_given(loading, per_core))


def _given(loading: dict[str, Any], per_core: dict[str, float]) -> dict[str, str]:
    return {
        "videos": f"{VIDEOS:,}",
        "peak": f"{PEAK / 1e12:.0f}",
        "utilisation": f"{UTILISATION:.0%}",
        "link": f"{LINK / 1e9:.0f}",
        "bytes_per_video": f"{BYTES_PER_VIDEO / 1e3:.0f}",
        "stock": f"{per_core['stock']:.1f}",
        "prepared": f"{per_core['prepared']:.1f}",
        "device": loading["device"],
        "revision": loading["git_revision"],
    }


TEXT = """# What larger machines would do, on paper

Written by `python -m benchmark.large_machines`. **None of this was run**: it says what to expect and what to buy, and
where it will hurt. What was measured on one machine is in [benchmark/SCALING.md](../benchmark/SCALING.md).

{table}

"Cores per GPU" is what keeps it fed, with `augment_on=device`; "storage" reads every file whole.

## What it is made of

Counted from the configurations (`experiment=NAME`), for one GPU:

| experiment | 10^12 operations a video | million parameters | kB of embeddings gathered | MB of clips exchanged |
|---|---|---|---|---|
{counted}

A clip of a query costs three forward passes (the backward pass is two), one of a key costs one. Gradients are float32
and leave a GPU twice but for the GPUs' number; embeddings go to all others; shuffled clips go to one.

Measured here, `make bench`, part "loading" ({device}, revision {revision}): a core reads {stock} samples a second
from 340x256 files with a keyframe every 250 frames and {prepared} from prepared ones, two views of 16 frames at 112
pixels.
Crops of {crop} pixels cost more than that to convert, and prepared files of 128 pixels are too small for them: take
the column of stock files as the one to plan by, and measure with `ssl-video bench` on your own files.

Assumed:

| what | value | why |
|---|---|---|
| training videos of Kinetics-400 | {videos} | as papers round it |
| peak of a GPU | {peak} TFLOP/s | data sheet of the H100 SXM, bfloat16, dense |
| of which is reached | {utilisation} | a guess: `python -m benchmark.step --large` on a GPU measures it |
| a GPU sends | {link} GB/s | half of a card of 400 Gbit/s |
| a file | {bytes_per_video} kB | 10 s at 340x256: mean of the files that `make bench` makes |

## What follows

- Gradients hide behind the backward pass at every size here: at 512 GPUs they take a link {hide} of the time of
  computing at most.
- What is gathered grows with the number of GPUs, but only embeddings do; clips are exchanged, each with one other GPU.
- Decoding is the bottleneck before the network is: at {utilisation} of the peak a GPU takes more samples than the cores
  beside it read from stock files. `ssl-video prepare`, `dataset.clips_per_open` and fewer, longer clips are the levers.
- A batch of 512 GPUs is eight times those of the experiments (64 GPUs). Whether it learns as well is not a question
  of speed; `scale_lr` says how the learning rate follows, and is off unless asked for.
"""


if __name__ == "__main__":
    sys.exit(main())
