"""The checkpoints of a run's folder: their names, which of them a resume takes, and which are kept.

``last.ckpt`` is the newest and is replaced whole. ``step_<n>.ckpt`` are the newest ones again and those before,
``best.ckpt`` is the best by a named value; they are further names of a file (hard links) where the file system has
such, so the newest one costs no space of its own. Beside each lies the backbone alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_video.utils.checkpoint import read_checkpoint
from ssl_video.utils.errors import InputError
from ssl_video.utils.files import link_atomically

LAST, BEST = "last.ckpt", "best.ckpt"
BACKBONE, BEST_BACKBONE = "backbone.safetensors", "backbone_best.safetensors"
UNUSED = "unused_"


@dataclass(frozen=True)
class Intact:
    """What a run goes on from.

    Attributes:
        path: the checkpoint.
        state: its content.
        damaged: newer ones that cannot be read, with the reason.
    """

    path: Path
    state: dict[str, Any]
    damaged: tuple[str, ...] = ()


def step_name(step: int) -> str:
    """Name of the checkpoint of a step."""
    return f"step_{step}.ckpt"


def step_backbone_name(step: int) -> str:
    """Name of the backbone beside it."""
    return f"backbone_step_{step}.safetensors"


def by_number(folder: Path, pattern: str) -> dict[int, Path]:
    """Files of a folder by the number in their name, the largest first."""
    found = ((re.fullmatch(pattern, path.name), path) for path in folder.glob("*"))
    return dict(sorted(((int(match[1]), path) for match, path in found if match), reverse=True))


def by_step(folder: Path) -> dict[int, Path]:
    """``step_<n>.ckpt`` of a folder by n, the newest first."""
    return by_number(folder, r"step_(\d+)\.ckpt")


def checkpoints(folder: Path) -> list[Path]:
    """What a resume may take, the newest first; a file of several names stands once, by the first of them."""
    paths = [path for path in (folder / LAST, *by_step(folder).values()) if path.is_file()]
    return [path for place, path in enumerate(paths) if not any(map(path.samefile, paths[:place]))]


def newest_intact(folder: Path) -> Intact | None:
    """The newest checkpoint whose checksums are right, None where there is no checkpoint at all.

    Raises:
        InputError: there are some, and none of them can be read.
    """
    damaged: list[str] = []
    for path in checkpoints(folder):
        try:
            return Intact(path, read_checkpoint(path), tuple(damaged))
        except InputError as fault:
            damaged.append(str(fault).removeprefix("checkpoint="))
    if damaged:
        raise InputError(
            "None of this run's checkpoints can be read:\n"
            + "\n".join(f"  {line}" for line in damaged)
            + "\nPut a copy in the place of one of them, or start a new run."
        )
    return None


def keep_newest(folder: Path, step: int, *, number: int) -> None:
    """Gives ``last.ckpt``, which is of ``step``, its second name, and removes all but so many of the newest.

    The new name is there before an old file goes.
    """
    if number > 0:
        link_atomically(folder / LAST, folder / step_name(step))
        link_atomically(folder / BACKBONE, folder / step_backbone_name(step))
    for surplus in list(by_step(folder))[number:]:
        (folder / step_name(surplus)).unlink(missing_ok=True)
        (folder / step_backbone_name(surplus)).unlink(missing_ok=True)


def keep_best(folder: Path) -> None:
    """Makes ``last.ckpt`` the best one too."""
    link_atomically(folder / LAST, folder / BEST)
    link_atomically(folder / BACKBONE, folder / BEST_BACKBONE)


def set_aside(folder: Path, resumed: Path, *, step: int) -> list[str]:
    """Makes what is resumed the newest checkpoint of its run; returns the new names of what came after it.

    That is what could not be read, or what the user goes back behind. It is not removed, but nothing takes it any more.
    """
    last = folder / LAST
    newer = [path for number, path in by_step(folder).items() if number > step]
    if last.is_file() and not any(map(last.samefile, [resumed, *newer])):
        newer.append(last)
    for path in newer:
        os.replace(path, path.with_name(f"{UNUSED}{path.name}"))
    for number in by_number(folder, r"backbone_step_(\d+)\.safetensors"):
        if number > step:
            name = step_backbone_name(number)
            os.replace(folder / name, folder / f"{UNUSED}{name}")
    if not last.is_file() or not last.samefile(resumed):
        link_atomically(resumed, last)
    return [f"{UNUSED}{path.name}" for path in newer]
