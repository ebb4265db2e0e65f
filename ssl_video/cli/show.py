"""``ssl-video show``: what a method's network really sees, after all augmentation and shuffling, as one picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_video.cli.parts import PROVIDED, TrainSettings, build_checked, quiet
from ssl_video.cli.stand_in import attach_stand_in
from ssl_video.cli.strips import answers_of, draw, first_videos, rows_of, watch
from ssl_video.utils.config import compose_checked
from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_atomically


def main(argv: Sequence[str]) -> int:
    """Draws one batch of a method; returns 0, or 2 where the input is refused."""
    quiet()
    parser = argparse.ArgumentParser(
        prog="ssl-video show", description=__doc__.splitlines()[0], epilog="Overrides are those of train.py."
    )
    parser.add_argument("-o", "--output", type=Path, help="the picture to write (default: show_<method>.png)")
    parser.add_argument("--videos", type=int, default=4, help="videos to show, 1 to 16 (default: 4)")
    parser.add_argument("--step", type=int, default=0, help="step of the run at which the method is asked (default: 0)")
    given, overrides = parser.parse_known_args(argv)
    try:
        if not 1 <= given.videos <= 16:
            raise InputError(f"--videos={given.videos} must be 1 to 16.")
        if given.step < 0:
            raise InputError(f"--step={given.step} must be at least 0, the first step.")
        path = show(overrides, output=given.output, num_videos=given.videos, step=given.step)
    except InputError as fault:
        print(f"ssl-video show: {fault}", file=sys.stderr)
        return 2
    print(f"written: {path}")
    return 0


def show(overrides: Sequence[str], *, output: Path | None, num_videos: int, step: int) -> Path:
    """Writes the picture of a method's first batch and returns its path."""
    wrong = [word for word in overrides if "=" not in word]
    if wrong:
        raise InputError(f"{wrong[0]!r} is neither an option nor an override key=value; see ssl-video show --help.")
    config = compose_checked("train", list(overrides), provided=PROVIDED, settings=TrainSettings)
    method, datamodule = build_checked(config)
    # One video is not enough for a batch norm over embeddings.
    batch = first_videos(next(iter(datamodule.training_loader(1))), max(4, num_videos))
    attach_stand_in(
        method,
        total_steps=max(config.trainer.max_steps, step + 1),
        step=step,
        batches_per_epoch=max(1, datamodule.batches_per_epoch(1)),
    )
    rows = rows_of(batch)
    chosen = {rows.index(row) for row in rows_of(first_videos(batch, num_videos))}
    strips = [strip for strip in watch(method, batch, seed=config.seed) if strip.video is None or strip.video in chosen]
    paths = datamodule.manifest.column("path")
    titles = [str(paths[row]) for row in rows]
    picture = draw(strips, titles=titles, answers=answers_of(method, batch, seed=config.seed))
    name = str(config.method._target_).split(".")[-2]
    target = output or Path(f"show_{name}.png")
    try:
        write_atomically(target, lambda temporary: picture.save(temporary, format="PNG"))
    except OSError as fault:
        raise InputError(f"--output={target} cannot be written ({fault.strerror}); name another file.") from fault
    return target
