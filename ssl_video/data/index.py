"""Turns a folder of videos into a manifest."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_video.data.annotations.annotated_video import AnnotatedVideo
from ssl_video.data.annotations.csv_labels import read_csv_labels
from ssl_video.data.annotations.folders import read_folder_labels
from ssl_video.data.manifest import OK, Manifest, frame_bounds
from ssl_video.data.probe_pool import probe_all
from ssl_video.data.readers.frames import IMAGE_ENDINGS
from ssl_video.data.stream_columns import STREAM_COLUMNS
from ssl_video.utils.errors import InputError
from ssl_video.utils.progress import with_progress

VIDEO_ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("3g2", "3gp", "asf", "avi", "divx", "f4v", "flv", "m2ts", "m2v", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg"),
        *("mts", "mxf", "ogv", "rmvb", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
MISSING = "missing"
EMPTY_SEGMENT = "empty_segment"
PROBE_VERSION = 2  # to be raised when the same file may be described in another way
PROBED_COLUMNS = (
    *("num_frames", "fps", "width", "height", "rotation", "codec", "keyframe_spacing"),
    *("bytes", "modified_ns", "status", "reason", *STREAM_COLUMNS),
)


def index_folder(
    root: Path,
    *,
    labels: Path | None = None,
    previous: Manifest | None = None,
    num_workers: int | None = None,
    progress: bool = True,
    images: bool = False,
    decode_all: bool = False,
) -> Manifest:
    """Indexes a folder of videos.

    Args:
        root: the folder; hidden files and folders are left out.
        labels: CSV of labels (see read_csv_labels); videos that it does not name are left out and counted. Without
            it labels are the sub-folder names if every video lies in one, else there are none.
        previous: an earlier index; files of the same size and time are taken from it, unless decode_all is set.
        num_workers: processes that look into files; the processor's cores by default.
        progress: show progress on standard error.
        images: also take folders and zips of numbered images as videos.
        decode_all: decode every frame as a check, not only the first and the last.

    Raises:
        InputError: the root is missing or holds no videos, or the CSV does not fit.
    """
    found = find_videos(root, images=images)
    if labels is None:
        videos, num_left_out = read_folder_labels(found), 0
    else:
        videos = read_csv_labels(labels)
        num_left_out = len(set(found) - {video.path for video in videos})
    return index_annotated(
        root,
        videos,
        previous=previous,
        num_workers=num_workers,
        progress=progress,
        decode_all=decode_all,
        num_left_out=num_left_out,
    )


def index_annotated(
    root: Path,
    videos: Sequence[AnnotatedVideo],
    *,
    previous: Manifest | None = None,
    num_workers: int | None = None,
    progress: bool = True,
    decode_all: bool = False,
    num_left_out: int = 0,
    images_fps: float | None = None,
) -> Manifest:
    """Indexes the videos that annotation files name.

    One whose file is not there gets the status `missing`, a stretch that has no frame of its file `empty_segment`.

    Args:
        root: folder that the videos' paths are relative to.
        videos: the data set.
        previous: see index_folder.
        num_workers: see index_folder.
        progress: see index_folder.
        decode_all: see index_folder.
        num_left_out: video files of the folder that the annotations do not name.
        images_fps: frames per second of folders and zips of images, which do not tell.

    Raises:
        InputError: none of the videos is there, or their label columns differ.
    """
    root = _checked_root(root)
    columns = list(videos[0].labels) if videos else []
    files = _describe(
        root,
        list(dict.fromkeys(video.path for video in videos)),
        known={} if decode_all else _by_path(previous),
        num_workers=num_workers or _num_cores(),
        progress=progress,
        decode_all=decode_all,
    )
    if all(file["status"] == MISSING for file in files.values()):
        example = f", such as {videos[0].path}" if videos else ""
        raise InputError(
            f"none of the {len(videos)} annotated videos lies under {root}{example}; paths are relative to the root."
        )
    rows = [_row(video, files[video.path], images_fps) for video in videos]
    return Manifest.from_records(rows, root=root, label_columns=columns, num_left_out=num_left_out)


def _describe(
    root: Path,
    paths: Sequence[str],
    *,
    known: Mapping[str, dict[str, Any]],
    num_workers: int,
    progress: bool,
    decode_all: bool,
) -> dict[str, dict[str, Any]]:
    """The columns of each file, looked into once however many segments it has."""
    files: dict[str, dict[str, Any]] = {}
    to_probe: list[str] = []
    for path in paths:
        before = known.get(path)
        state = _state(root / path, before)
        if state is None:
            files[path] = {"status": MISSING, "reason": "the file is not there"}
        elif before is not None and state.items() <= before.items() and not _is_of_older_version(before):
            files[path] = before
        else:
            files[path] = dict(state)
            to_probe.append(path)
    answers = probe_all([root / path for path in to_probe], num_workers=num_workers, decode_all=decode_all)
    if progress and to_probe:
        answers = with_progress(answers, total=len(to_probe), title="indexing", unit="video")
    for path, answer in zip(to_probe, answers, strict=True):
        files[path] |= answer
    return files


def _row(video: AnnotatedVideo, file: Mapping[str, Any], images_fps: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": video.path,
        "video_id": video.video_id,
        "segment_id": video.segment_id,
        "start_seconds": video.start_seconds,
        "end_seconds": video.end_seconds,
        "split": video.split,
        "group": video.group,
        **video.labels,
        **file,
    }
    if images_fps is not None and row.get("codec") == "images":
        row["fps"] = images_fps
    if row["status"] == OK and not _has_frames(row):
        end = "the end" if video.end_seconds is None else f"second {video.end_seconds:g}"
        told = f"from second {video.start_seconds or 0:g} to {end} of {row['num_frames']} frames at {row['fps']:g} fps"
        row |= {"status": EMPTY_SEGMENT, "reason": f"there is no frame {told}"}
    return row


def _has_frames(row: Mapping[str, Any]) -> bool:
    if row["start_seconds"] is None and row["end_seconds"] is None:
        return True
    first, behind = frame_bounds(row)
    return first < behind


def find_videos(root: Path, *, images: bool = False) -> list[str]:
    """Lists the videos under a folder, sorted, relative to it, with forward slashes.

    Args:
        root: the folder; links to folders are followed, hidden names are not.
        images: also take folders and zips of numbered images.

    Raises:
        InputError: the folder is missing or holds no videos.
    """
    root = _checked_root(root)
    found = sorted(_walk(root, images=images))
    if not found:
        raise InputError(
            f"{root} holds no videos; it must hold files that end in {' '.join(sorted(VIDEO_ENDINGS))}, or, if images "
            "are asked for, folders or zips of numbered images."
        )
    return found


def _checked_root(root: Path) -> Path:
    if not Path(root).is_dir():
        raise InputError(f"{root} must be a folder of videos; check the path, or mount the disk it lies on.")
    return Path(root).absolute()


def _walk(root: Path, *, images: bool) -> Iterator[str]:
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here = os.path.realpath(folder)
        if here in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(here)
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(folder).relative_to(root).as_posix()
        endings = {name: os.path.splitext(name)[1].lower() for name in files if not name.startswith(".")}
        if images and any(ending in IMAGE_ENDINGS for ending in endings.values()):
            yield inside
        prefix = "" if inside == "." else f"{inside}/"  # text, not paths: there may be a million files
        for name, ending in endings.items():
            if ending in VIDEO_ENDINGS or (images and ending == ".zip"):
                yield prefix + name


def _state(path: Path, before: Mapping[str, Any] | None) -> dict[str, int] | None:
    """Size and time of a file, or of the images of a folder; None if there is none."""
    try:
        own = path.stat()
        if stat.S_ISDIR(own.st_mode):
            return _folder_state(path, own, before)
    except OSError:
        return None
    return {"bytes": own.st_size, "modified_ns": own.st_mtime_ns}


def _folder_state(path: Path, own: os.stat_result, before: Mapping[str, Any] | None) -> dict[str, int]:
    """Size and time of a folder of images; the size is taken from before where no time has changed.

    Looking at every image of every folder takes longer than all else where nothing has changed. The folder's own time
    tells of images that were added, removed, renamed or replaced; those of its first and last image of images that
    were written over, all of them.
    """
    names = os.listdir(path)
    ends = {min(names), max(names)} if names else set()
    modified = max([own.st_mtime_ns, *(os.stat(path / name).st_mtime_ns for name in ends)])
    if before is not None and before["modified_ns"] == modified and before["bytes"] is not None:
        return {"bytes": before["bytes"], "modified_ns": modified}
    with os.scandir(path) as entries:
        return {"bytes": sum(entry.stat().st_size for entry in entries), "modified_ns": modified}


def _is_of_older_version(file: Mapping[str, Any]) -> bool:
    """Whether a readable file was described by a version that did not say where its keyframes are."""
    return file["status"] == OK and file["keyframes"] is None and file["codec"] != "images"


def _num_cores() -> int:
    """Cores that this process may use; a cluster's job often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _by_path(previous: Manifest | None) -> Mapping[str, dict[str, Any]]:
    if previous is None:
        return {}
    columns = [previous.column(name) for name in PROBED_COLUMNS]
    rows = [dict(zip(PROBED_COLUMNS, values, strict=True)) for values in zip(*columns, strict=True)]
    for row in rows:
        if row["status"] == EMPTY_SEGMENT:  # that is said of the segment, not of its file
            row |= {"status": OK, "reason": None}
    return dict(zip(previous.column("path"), rows, strict=True))
