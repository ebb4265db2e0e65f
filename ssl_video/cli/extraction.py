"""Features of some videos: from the cache, or from one pass over the videos that all processes share."""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from ssl_video.backbones.base import Backbone
from ssl_video.cli.parts import cache_dir
from ssl_video.cli.processes import join_processes, threads_of_one
from ssl_video.cli.provenance import look_at, trace
from ssl_video.cli.views import make_view, resolve
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.samplers.base import clip_span
from ssl_video.evaluation.cache import Entry, PartFile, entry_key, open_entry, read_entry, write_entry
from ssl_video.evaluation.clips import ClipSpec
from ssl_video.evaluation.extract import Extracted, FeatureKey, Pass, extract_features, pixels
from ssl_video.utils.distributed import gather_objects, rank, world_size
from ssl_video.utils.errors import InputError

Rows = NDArray[np.int64]
Description = dict[str, Any]


def extract_rows(
    config: DictConfig,
    datamodule: VideoDataModule,
    backbones: Mapping[str, Backbone],
    specs: Sequence[ClipSpec],
    rows: Rows,
    *,
    title: str,
) -> Extracted:
    """Features of some rows, the same in all processes; what the cache has is not computed, nor its videos decoded.

    Args:
        config: of the evaluation; ``feature_cache=false`` neither takes features from the cache nor leaves them there.
        datamodule: the data.
        backbones: by name.
        specs: the clips wanted.
        rows: of the manifest, ascending.
        title: of the progress bar.
    """
    started = time.monotonic()
    device = join_processes(config)
    videos = look_at(datamodule.manifest, rows)
    resolved = {spec: resolve(spec, num_frames=config.num_frames) for spec in specs}
    source = trace(config, backbones, videos=videos.digest, device=device, seed=datamodule.seed)
    keys = [(name, spec) for spec in dict.fromkeys(resolved.values()) for name in backbones]
    task = _Task(config, datamodule, backbones, rows, device, title)
    entries, passes = _find_or_make(task, {key: source.of(key) for key in keys})
    unreadable = dict(sorted({row: why for entry in entries.values() for row, why in entry.unreadable.items()}.items()))
    is_kept = ~np.isin(rows, list(unreadable))
    kept, lengths = rows[is_kept], videos.lengths[is_kept]
    columns = {name: datamodule.manifest.column(name) for name in ("video_id", "path")}
    columns["unit"] = datamodule.manifest.units()
    named = {name: [values[row] for row in kept.tolist()] for name, values in columns.items()}
    spans = {
        asked: clip_span(spec.num_frames or 1, config.frame_stride * spec.stride_factor)
        for asked, spec in resolved.items()
    }
    return Extracted(
        features={
            (name, asked): _features(entries[name, spec], rows, kept)
            for asked, spec in resolved.items()
            for name in backbones
        },
        labels=torch.from_numpy(datamodule.labels[kept]),
        rows=torch.from_numpy(kept),
        video_ids=named["video_id"],
        groups=named["unit"],
        paths=named["path"],
        unreadable=unreadable,
        too_short={asked: torch.from_numpy(lengths < span) for asked, span in spans.items()},
        seconds=time.monotonic() - started,
        decode_seconds=sum(done.decode_seconds for done in passes),
        cached=not passes,
    )


@dataclass(frozen=True)
class _Task:
    """What a pass is made over, and by what."""

    config: DictConfig
    datamodule: VideoDataModule
    backbones: Mapping[str, Backbone]
    rows: Rows
    device: torch.device
    title: str


def _find_or_make(
    task: _Task, descriptions: Mapping[FeatureKey, Description]
) -> tuple[dict[FeatureKey, Entry], list[Pass]]:
    """An entry for each key, and what every process found in the pass that was needed; none where all was there."""
    store = cache_dir(task.config.cache_dir) / "features"
    keep = task.config.feature_cache
    entries = _look_up(store, descriptions) if keep else {}
    missing = {key: description for key, description in descriptions.items() if key not in entries}
    if rank() == 0 and entries:
        print(f"{task.title}: {len(entries)} of {len(descriptions)} are in {store}", file=sys.stderr)
    if not missing:
        return entries, []
    with _scratch_folder(store) as scratch:
        target = store if keep else scratch
        passes = _make(task, missing, scratch=scratch, target=target)
        made = {key: open_entry(target / entry_key(description)) for key, description in missing.items()}
    return entries | made, passes


def _look_up(store: Path, descriptions: Mapping[FeatureKey, Description]) -> dict[FeatureKey, Entry]:
    """What the cache has, as the first process sees it; only that one reads all of it, to check it."""
    found: dict[FeatureKey, Entry] = {}
    if rank() == 0:
        for key, description in descriptions.items():
            entry = read_entry(store / entry_key(description), description)
            found |= {} if entry is None else {key: entry}
    there = gather_objects(list(found))[0]
    return found or {key: open_entry(store / entry_key(descriptions[key])) for key in there}


@contextmanager
def _scratch_folder(store: Path) -> Iterator[Path]:
    """A folder of all processes, as long as one needs it."""
    scratch = gather_objects(store / f".{uuid.uuid4().hex[:12]}.partial")[0]
    if rank() == 0:
        scratch.mkdir(parents=True)
    gather_objects(None)
    try:
        yield scratch
        gather_objects(None)  # what is mapped stays when its file goes, but it must be mapped before
    finally:
        if rank() == 0:
            shutil.rmtree(scratch, ignore_errors=True)


def _make(task: _Task, descriptions: Mapping[FeatureKey, Description], *, scratch: Path, target: Path) -> list[Pass]:
    """Fills the entries below ``target``: each process computes its part of the rows, the first puts them together."""
    names = {key: entry_key(description) for key, description in descriptions.items()}
    parts = {key: PartFile(scratch / f"{name}.{rank()}") for key, name in names.items()}
    try:
        done = _pass_over(task, np.array_split(task.rows, world_size())[rank()], parts)
    finally:
        for part in parts.values():
            part.close()
    # Every process comes here, also one that had no videos; so all parts are whole now.
    gathered = gather_objects((done, {key: part.shape for key, part in parts.items()}))
    passes = [one for one, _ in gathered]
    unreadable = _check_count(task.rows, passes)
    if rank() == 0:
        for key, name in names.items():
            shapes = {scratch / f"{name}.{number}": shapes[key] for number, (_, shapes) in enumerate(gathered)}
            files = [file for file, shape in shapes.items() if shape is not None]
            _refuse_absent(files, target)
            # Where nothing at all could be read, nobody knows the dimensions of maxima.
            num_views, dim = next(filter(None, shapes.values()), (key[1].num_views, task.backbones[key[0]].feature_dim))
            shape = (len(task.rows) - len(unreadable), num_views, dim)
            # Another command may have made it meanwhile, and have it open.
            if read_entry(target / name, descriptions[key]) is None:
                write_entry(target / name, descriptions[key], files, shape=shape, unreadable=unreadable)
    gather_objects(None)
    return passes


def _refuse_absent(files: Sequence[Path], target: Path) -> None:
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise InputError(
            f"cache_dir={target.parent} is not the same folder on all machines: {len(absent)} parts that other "
            "processes wrote are not in it. Give one that all of them see."
        )


def _pass_over(task: _Task, rows: Rows, parts: Mapping[FeatureKey, PartFile]) -> Pass:
    """Computes this process's rows."""
    if not len(rows):
        return Pass([], {}, 0.0)
    config = task.config
    transform = task.datamodule.transform
    views = {
        pixel: make_view(pixel, frame_stride=config.frame_stride, transform=transform)
        for pixel in dict.fromkeys(pixels(spec) for _, spec in parts)
    }
    # Many views of few videos take as much memory as few of many.
    batch_size = max(1, config.batch_size // len(views))
    loader = task.datamodule.evaluation_views_loader(rows, views, batch_size=batch_size)
    return extract_features(
        task.backbones,
        loader,
        wanted=list(parts),
        write=lambda key, features: parts[key].append(features),
        device=task.device,
        seed=task.datamodule.seed,
        num_threads=threads_of_one(config),
        total=len(loader),
        title=task.title if rank() == 0 else None,
    )


def _check_count(rows: Rows, passes: Sequence[Pass]) -> dict[int, str]:
    """Reason by row of what could not be read; RuntimeError unless every row came exactly once, in order."""
    unreadable = {row: reason for done in passes for row, reason in done.unreadable.items()}
    read = [row for done in passes for row in done.rows]
    if read != [row for row in rows.tolist() if row not in unreadable] or not unreadable.keys() <= set(rows.tolist()):
        raise RuntimeError(
            f"{len(read)} videos with features and {len(unreadable)} unreadable ones are not the {len(rows)} asked for."
        )
    return unreadable


def _features(entry: Entry, rows: Rows, kept: Rows) -> torch.Tensor:
    """Those of the rows ``kept``; entries that were made at different times may lack different videos."""
    own = rows[~np.isin(rows, list(entry.unreadable))]
    return entry.features if len(own) == len(kept) else entry.features[torch.from_numpy(np.isin(own, kept))]
