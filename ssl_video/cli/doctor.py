"""`ssl-video doctor`: looks at the installation, the machine and a data set, and says what to fix."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from ssl_video.cli.checks.data import check_data
from ssl_video.cli.checks.finding import Finding, format_findings
from ssl_video.cli.checks.installation import check_installation
from ssl_video.cli.checks.machine import Needs, check_machine
from ssl_video.cli.parts import (
    PROVIDED,
    TrainSettings,
    augment_on,
    build_datamodule,
    cache_dir,
    quiet,
)
from ssl_video.cli.strategies import num_processes
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.utils.config import build, compose_checked
from ssl_video.utils.errors import InputError

FLOAT_BYTES = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command: 0 nothing is broken, 1 there are faults, 2 refused, 130 interrupted."""
    quiet()
    given = _parser().parse_intermixed_args(argv)
    try:
        config = compose_checked("train", given.overrides, provided=PROVIDED, settings=TrainSettings)
        findings = list(_findings(config, sample=given.sample))
    except InputError as fault:
        print(f"ssl-video doctor: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if given.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(format_findings(findings))
    return 1 if any(finding.level == "fault" for finding in findings) else 0


def _findings(config: DictConfig, *, sample: int) -> Iterator[Finding]:
    yield from check_installation()
    try:
        datamodule = build_datamodule(config, sampler=build(config.sampler), transform=build(config.transform))
    except InputError as fault:
        # The rest can still be looked at; one broken thing often hides another.
        yield from check_machine(_needs(config, None))
        yield Finding("fault", "data", str(fault))
        return
    yield from check_machine(_needs(config, datamodule))
    try:
        yield from check_data(datamodule, sample=sample)
    except InputError as fault:  # what a run would be refused for, such as a full quarantine
        yield Finding("fault", "data", str(fault))


def _needs(config: DictConfig, datamodule: VideoDataModule | None) -> Needs:
    return Needs(
        processes=num_processes(config) // int(config.trainer.num_nodes),
        num_workers=config.dataset.num_workers,
        batch_bytes=0 if datamodule is None else _batch_bytes(config, datamodule),
        folders={
            "run folder": Path(config.run_dir or "outputs"),
            "cache folder": cache_dir(config.cache_dir),
        },
    )


def _batch_bytes(config: DictConfig, datamodule: VideoDataModule) -> int:
    """Bytes that a worker hands over at once: the transform says how large a clip is."""
    frames = datamodule.frames_per_batch() * datamodule.clips_per_open
    drawn = datamodule.transform.draw([(256, 340)] * datamodule.sampler.num_views, num_frames=1)
    part = drawn.parts[0] if not isinstance(drawn.parts[0], Sequence) else drawn.parts[0][0]
    height, width = part.output_size(256, 340)
    return frames * height * width * 3 * (1 if augment_on(config) == "device" else FLOAT_BYTES)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-video doctor",
        description=__doc__,
        epilog="Overrides are those of train.py: ssl-video doctor dataset=folder dataset.root=/my/videos trainer=gpu",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="the run that is planned, as for train.py")
    parser.add_argument("--sample", type=_positive, default=20, help="videos to decode (default 20)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value
