"""Where a data set's manifest comes from: one function per kind of data set, each indexed on first use.

A manifest is kept in the cache folder, keyed by the data's path and annotation files; indexing again only looks into
files whose size or time has changed.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.annotations.charades_ego import read_charades_ego
from ssl_video.data.annotations.diving48 import read_diving48
from ssl_video.data.annotations.hmdb51 import read_hmdb51
from ssl_video.data.annotations.jester import FRAMES_PER_SECOND, read_jester
from ssl_video.data.annotations.kinetics import read_kinetics
from ssl_video.data.annotations.kinetics100 import read_kinetics100
from ssl_video.data.annotations.something_something import (
    read_something_something,
    read_something_something_mini,
)
from ssl_video.data.annotations.ucf101 import read_ucf101
from ssl_video.data.index import PROBE_VERSION, index_annotated, index_folder
from ssl_video.data.manifest import Manifest
from ssl_video.data.moving_shapes.files import GENERATOR_VERSION, make_moving_shapes
from ssl_video.data.moving_shapes.scene import SceneSettings
from ssl_video.utils.errors import InputError

Split = Literal["train", "val", "test"]


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


def manifest(*, root: Path | None, labels: Path | None, cache_dir: Path, file: str | None = None) -> Manifest:
    """A manifest that ``ssl-video index`` or ``ssl-video prepare`` wrote, taken at its word: no video is looked into.

    Args:
        root: folder that its paths are relative to; the one it was written with by default.
        labels: none; they stand in it.
        cache_dir: where its Arrow copy is kept.
        file: the manifest.

    Raises:
        InputError: no file, or no manifest.
    """
    _no_labels(labels, "manifest")
    if file is None:
        raise InputError(
            "dataset=manifest needs dataset.source.file=FILE.parquet, which `ssl-video index FOLDER -o FILE.parquet` "
            "or `ssl-video prepare` writes."
        )
    return Manifest.open(Path(file), root=root, cache_dir=cache_dir)


def ucf101(*, root: Path | None, labels: Path | None, cache_dir: Path, split: int = 1) -> Manifest:
    """UCF101 with one of its three official splits (``classInd.txt``, ``trainlist0N.txt``, ``testlist0N.txt``)."""
    return _official("ucf101", root, labels, cache_dir, read_ucf101, {"split": split})


def hmdb51(*, root: Path | None, labels: Path | None, cache_dir: Path, split: int = 1) -> Manifest:
    """HMDB51 with one of its three official splits (``<class>_test_splitN.txt``)."""
    return _official("hmdb51", root, labels, cache_dir, read_hmdb51, {"split": split})


def kinetics(
    *,
    root: Path | None,
    labels: Path | None,
    cache_dir: Path,
    num_classes: int,
    splits: Sequence[Split] = ("train", "val"),
    annotations: str | None = None,
) -> Manifest:
    """Kinetics-400, -600 or -700, its clips cut out or as stretches of whole videos; see ``read_kinetics``."""
    arguments = {"num_classes": num_classes, "splits": splits, "annotations": _path(annotations)}
    return _official(f"kinetics{num_classes}", root, labels, cache_dir, read_kinetics, arguments)


def kinetics100(
    *,
    root: Path | None,
    labels: Path | None,
    cache_dir: Path,
    classes: str | None = None,
    train_list: str | None = None,
    val_list: str | None = None,
    annotations: str | None = None,
) -> Manifest:
    """The subset of Kinetics-400 that the user's files define; see ``read_kinetics100``."""
    arguments = {"classes": classes, "train_list": train_list, "val_list": val_list, "annotations": annotations}
    paths = {name: _path(value) for name, value in arguments.items()}
    return _official("kinetics100", root, labels, cache_dir, read_kinetics100, paths)


def something_something_v2(
    *,
    root: Path | None,
    labels: Path | None,
    cache_dir: Path,
    splits: Sequence[Split] = ("train", "val"),
    annotations: str | None = None,
) -> Manifest:
    """Something-Something V2 with its official JSON files; see ``read_something_something``."""
    arguments = {"splits": splits, "annotations": _path(annotations)}
    return _official("something_something_v2", root, labels, cache_dir, read_something_something, arguments)


def something_something_v2_mini(
    *,
    root: Path | None,
    labels: Path | None,
    cache_dir: Path,
    train_list: str | None = None,
    val_list: str | None = None,
    classes: str | None = None,
    annotations: str | None = None,
) -> Manifest:
    """The subset of Something-Something V2 that the user's lists define; see ``read_something_something_mini``."""
    arguments = {"train_list": train_list, "val_list": val_list, "classes": classes, "annotations": annotations}
    paths = {name: _path(value) for name, value in arguments.items()}
    return _official("something_something_v2_mini", root, labels, cache_dir, read_something_something_mini, paths)


def jester(
    *,
    root: Path | None,
    labels: Path | None,
    cache_dir: Path,
    splits: Sequence[Split] = ("train", "val"),
    annotations: str | None = None,
) -> Manifest:
    """Jester, folders of images at 12 frames per second (with ``reader=frames``); see ``read_jester``."""
    arguments = {"splits": splits, "annotations": _path(annotations)}
    return _official("jester", root, labels, cache_dir, read_jester, arguments, images_fps=FRAMES_PER_SECOND)


def diving48(*, root: Path | None, labels: Path | None, cache_dir: Path, annotations: str | None = None) -> Manifest:
    """Diving48 with the labels of its second version; see ``read_diving48``."""
    return _official("diving48", root, labels, cache_dir, read_diving48, {"annotations": _path(annotations)})


def charades_ego(
    *,
    root: Path | None,
    labels: Path | None,
    cache_dir: Path,
    whole_videos: bool = False,
    annotations: str | None = None,
) -> Manifest:
    """Charades-Ego, a row for each action of a video, or for each video; see ``read_charades_ego``."""
    arguments = {"whole_videos": whole_videos, "annotations": _path(annotations)}
    return _official("charades_ego", root, labels, cache_dir, read_charades_ego, arguments)


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
    """The embedded data set, made on first use; see ``SceneSettings`` for most arguments."""
    _no_labels(labels, "moving_shapes")
    scene: dict[str, Any] = {
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
    }
    key = json.dumps({"generator": GENERATOR_VERSION, "num_videos": num_videos, **scene, "seed": seed})
    made = root or cache_dir / "moving_shapes" / _digest(key)
    make_moving_shapes(made, settings=SceneSettings(**scene), num_videos=num_videos, seed=seed)
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


def _official(
    name: str,
    root: Path | None,
    labels: Path | None,
    cache_dir: Path,
    read: Callable[..., list[AnnotatedVideo]],
    arguments: Mapping[str, Any],
    *,
    images_fps: float | None = None,
) -> Manifest:
    """A data set with annotation files of its own: `read(root, **arguments)`."""
    root = _needed(root, name)
    _no_labels(labels, name)
    return _cached(
        lambda previous: index_annotated(root, read(root, **arguments), previous=previous, images_fps=images_fps),
        root,
        cache_dir,
        key=" ".join([name, *(str(value) for value in arguments.values())]),
    )


def _path(given: str | None) -> Path | None:
    return None if given is None else Path(given)


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
