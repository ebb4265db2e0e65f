"""``evaluate.py`` and ``ssl-video evaluate``: checkpoint → features → protocol → metrics.json."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from ssl_video.cli.features import ask, asked_split, build_evaluation_data, extract_split
from ssl_video.cli.launch import launch
from ssl_video.cli.parts import PROVIDED, EvaluateSettings, quiet, share_cores
from ssl_video.cli.results import make_report, print_table, result_folder
from ssl_video.cli.weights import build_backbones, complete_overrides, read_weights
from ssl_video.evaluation.clips import NORMAL
from ssl_video.evaluation.features import EvaluationProtocol
from ssl_video.utils.config import build
from ssl_video.utils.run import Job, peak_memory_bytes, write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates as the command line says; returns the exit code."""
    quiet()
    words = sys.argv[1:] if argv is None else argv
    return launch(
        "evaluate", evaluate, words, provided=PROVIDED, settings=EvaluateSettings, complete=complete_overrides
    )


def evaluate(config: DictConfig, job: Job) -> Path:
    """Runs one evaluation and returns the folder of its ``metrics.json``."""
    started = time.monotonic()
    share_cores(config)
    weights = read_weights(config.checkpoint)
    folder = result_folder(config, job, weights)
    protocol: EvaluationProtocol = build(config.evaluation)
    backbones = build_backbones(config, weights)
    datamodule = build_evaluation_data(config, num_clips=protocol.clips("test")[NORMAL].num_clips)
    split = asked_split(datamodule)
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
    train, test = (extract_split(datamodule, backbones, part, device) for part in ("train", split))
    results = {name: ask(protocol, datamodule, name, train, test) for name in backbones}
    report = make_report(config, job, weights, datamodule, protocol, split, test, results)
    report |= {"seconds": round(time.monotonic() - started, 2), "peak_memory_bytes": peak_memory_bytes()}
    write_json(folder / "metrics.json", report)
    print_table(report)
    print(f"Written to {folder / 'metrics.json'}")
    return folder
