"""``evaluate.py`` and ``ssl-video evaluate``: checkpoint → features → protocols → metrics.json."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from ssl_video.cli.launch import launch
from ssl_video.cli.loggers import log_evaluation
from ssl_video.cli.measure import measure
from ssl_video.cli.parts import PROVIDED, EvaluateSettings, quiet, share_cores
from ssl_video.cli.protocols import is_scorecard
from ssl_video.cli.report import write_report
from ssl_video.cli.results import result_folder, write_results
from ssl_video.cli.scorecard import format_markdown, format_report
from ssl_video.cli.weights import complete_overrides
from ssl_video.hub.weights import read_weights
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job, write_text


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates as the command line says; returns the exit code."""
    quiet()
    words = sys.argv[1:] if argv is None else argv
    return launch(
        "evaluate", evaluate, words, provided=PROVIDED, settings=EvaluateSettings, complete=complete_overrides
    )


def evaluate(config: DictConfig, job: Job) -> Path:
    """Runs one evaluation and returns the folder of its ``metrics.json``."""
    share_cores(config)
    weights = read_weights(config.checkpoint)
    folder = result_folder(config, job, weights)
    measured = measure(config, job, weights)
    if measured is None:
        return folder
    write_results(folder, measured)
    print(format_report(measured.report))
    print(f"Written to {folder / 'metrics.json'}")
    log_evaluation(config, job, run_dir=weights.folder, step=weights.step, folder=folder, report=measured.report)
    if is_scorecard(config):
        write_text(folder / "table.md", format_markdown(measured.report))
        if config.scorecard.report:
            _write_page(folder, job)
    return folder


def _write_page(folder: Path, job: Job) -> None:
    """Writes the page; the result stands without it."""
    try:
        print(f"To look at: {write_report([folder], overrides=job.overrides, force=True)}")
    except InputError as fault:
        print(f"The page was not written: {fault}", file=sys.stderr)
