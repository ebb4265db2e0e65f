"""Where a data set's manifest comes from: one function per kind of data set, each indexed on first use.

A manifest is kept in the cache folder, keyed by the data's path and annotation files; indexing again only looks into
files whose size or time has changed.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.annotations.hmdb51 import read_hmdb51
from ssl_video.data.annotations.ucf101 import read_ucf101
from ssl_video.data.index import PROBE_VERSION, index_annotated, index_folder
from ssl_video.data.manifest import Manifest
from ssl_video.data.moving_shapes import GENERATOR_VERSION, make_moving_shapes
from ssl_video.utils.errors import InputError


def folder(*, root: Path | None, labels: Path | None, cache_dir: Path, images: bool = False) -> Manifest:
    """Any folder of videos: labels from a CSV, else from sub-folder names, else none.

    Args:
        root: the folder.
        labels: a CSV, see ``ssl_video.data.annotations.csv_labels``.
        cache_dir: where the manifest is kept.
        images: folders and zips of numbered images are videos too (with ``reader=frames``).

    Raises:
        InputError: no root, no videos in it, or a CSV that does not fit.
    """
    root = _needed(root, "folder")
    return _cached(
        lambda previous: index_folder(root, labels=labels, previous=previous, images=images),
        root,
        cache_dir,
        key=f"folder {labels} {images}",
    )


def ucf101(*, root: Path | None, labels: Path | None, cache_dir: Path, split: int = 1) -> Manifest:
    """UCF101 with one of its three official splits (``classInd.txt``, ``trainlist0N.txt``, ``testlist0N.txt``)."""
    root = _needed(root, "ucf101")
    _no_labels(labels, "ucf101")
    return _cached(
        lambda previous: index_annotated(root, read_ucf101(root, split=split), previous=previous),
        root,
        cache_dir,
        key=f"ucf101 {split}",
    )


def hmdb51(*, root: Path | None, labels: Path | None, cache_dir: Path, split: int = 1) -> Manifest:
    """HMDB51 with one of its three official splits (``<class>_test_splitN.txt``)."""
    root = _needed(root, "hmdb51")
    _no_labels(labels, "hmdb51")
    return _cached(
        lambda previous: index_annotated(root, read_hmdb51(root, split=split), previous=previous),
        root,
        cache_dir,
        key=f"hmdb51 {split}",
    )


def moving_shapes(
    *,
    root: Path | None,
    labels: Path | None,
    cache_dir: Path,
    num_videos: int = 600,
    size: int = 64,
    num_frames: int = 48,
    object_scale: float = 1.5,
    speed: float = 1.0,
    speed_spread: float = 0.33,
    camera_jitter: float = 0.005,
    num_distractors: int = 1,
    texture_contrast: float = 1.0,
    colour_spread: float = 0.2,
    textures_per_appearance: int = 1,
    seed: int = 0,
) -> Manifest:
    """The embedded data set, made on first use; see ``ssl_video.data.moving_shapes`` for the arguments."""
    _no_labels(labels, "moving_shapes")
    arguments = {
        "generator": GENERATOR_VERSION,
        "num_videos": num_videos,
        "size": size,
        "num_frames": num_frames,
        "object_scale": object_scale,
        "speed": speed,
        "speed_spread": speed_spread,
        "camera_jitter": camera_jitter,
        "num_distractors": num_distractors,
        "texture_contrast": texture_contrast,
        "colour_spread": colour_spread,
        "textures_per_appearance": textures_per_appearance,
        "seed": seed,
    }
    made = root or cache_dir / "moving_shapes" / _digest(json.dumps(arguments))
    make_moving_shapes(
        made,
        num_videos=num_videos,
        size=size,
        num_frames=num_frames,
        object_scale=object_scale,
        speed=speed,
        speed_spread=speed_spread,
        camera_jitter=camera_jitter,
        num_distractors=num_distractors,
        texture_contrast=texture_contrast,
        colour_spread=colour_spread,
        textures_per_appearance=textures_per_appearance,
        seed=seed,
    )
    videos = [
        AnnotatedVideo(
            path=row["path"],
            labels={"motion": row["motion"], "appearance": row["appearance"]},
            split=row["split"],
            group=row["group"],
        )
        for row in _rows(made / "labels.csv")
    ]
    return _cached(
        lambda previous: index_annotated(made, videos, previous=previous), made, cache_dir, key="moving_shapes"
    )


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def _needed(root: Path | None, name: str) -> Path:
    if root is None:
        raise InputError(f"dataset={name} needs dataset.root=DIR, the folder with its videos.")
    if not root.is_dir():
        raise InputError(f"dataset.root={root} is not a folder; check the path, or mount the disk it lies on.")
    return root


def _no_labels(labels: Path | None, name: str) -> None:
    if labels is not None:
        raise InputError(
            f"dataset.labels={labels}: {name} brings its own labels; use dataset=folder for a CSV of yours."
        )


def _cached(index: Callable[[Manifest | None], Manifest], root: Path, cache_dir: Path, *, key: str) -> Manifest:
    # Another version may look into files in another way, and must not take an older one's word.
    path = cache_dir / "manifests" / f"{_digest(f'{root.resolve()} {key} {PROBE_VERSION}')}.parquet"
    previous = Manifest.open(path, root=root, cache_dir=cache_dir) if path.is_file() else None
    manifest = index(previous)
    if previous is None or manifest.table != previous.table:
        manifest.write(path)
    return Manifest.open(path, root=root, cache_dir=cache_dir)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
