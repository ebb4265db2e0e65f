"""The data set that a command names: a manifest's file, or ``dataset=NAME`` and what belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_video.data.manifest import Manifest
from ssl_video.data.readers.base import ReaderFactory
from ssl_video.utils.errors import InputError


@dataclass(frozen=True)
class NamedData:
    """A manifest, what opens its files, and where copies of manifests are kept."""

    manifest: Manifest
    open_reader: ReaderFactory
    cache_dir: Path


def named_data(words: Sequence[str], *, root: Path | None, command: str) -> NamedData:
    """Finds the data set that the words of a command line name.

    Args:
        words: one manifest, or overrides as for train.py; ``reader=`` and ``cache_dir=`` go with both.
        root: folder of a manifest's videos, where it is another one now.
        command: for messages, such as ``ssl-video motion``.

    Raises:
        InputError: nothing is named, or several things, or what is named cannot be read.
    """
    # Imported here: worker processes import the command's module, and need nothing of training.
    from ssl_video.cli.parts import PROVIDED, TrainSettings, build_datamodule, build_reader, cache_dir, quiet
    from ssl_video.utils.config import build, compose_checked

    quiet()
    files = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if len(files) > 1 or not words:
        raise InputError(
            f"name one manifest ({command} manifest.parquet), or a data set as train.py does ({command} "
            "dataset=moving_shapes)."
        )
    if root is not None and not files:
        raise InputError(f"--root {root} goes with a manifest; with a data set it is dataset.root={root}.")
    config = compose_checked("train", overrides, provided=PROVIDED, settings=TrainSettings)
    folder, open_reader = cache_dir(config.cache_dir), build_reader(config)
    if files:
        return NamedData(Manifest.open(Path(files[0]), root=root, cache_dir=folder), open_reader, folder)
    datamodule = build_datamodule(config, sampler=build(config.sampler), transform=build(config.transform))
    return NamedData(datamodule.manifest, open_reader, folder)
