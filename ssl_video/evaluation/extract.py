"""Frozen features of videos: one pass over the pixels serves every backbone, frame order and pooling.

On a CPU the clips of one video are one forward pass, computed by one thread: so a video's features are the same to the
last bit whatever the batch, the number of decoding processes and the number of ranks. Torch's own sums are not: with
the batch, and with the number of threads, the last bits of slow_r50, s3d_g and r2plus1d change (torch 2.15). It costs
nothing that matters: batches of 8 videos take as long, and several threads work on several videos instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.evaluation.clips import NUM_CROPS, ClipSpec, Order, Pooling
from ssl_video.utils.errors import InputError
from ssl_video.utils.progress import with_progress

# Features are told apart by the name of their backbone and their clips.
FeatureKey = tuple[str, ClipSpec]


@dataclass(frozen=True)
class Extracted:
    """Features of N videos, mapped from files rather than held in memory.

    Attributes:
        features: per backbone and clips ``[N, V, D]`` float32 on the CPU.
        labels: ``[N]`` int64, -1 where a video has none.
        rows: ``[N]`` int64 rows of the manifest, ascending.
        video_ids: N names.
        groups: N names of what belongs together: a video's group, or itself where it has none.
        paths: N files relative to the data set's root.
        unreadable: reason by row, for videos that could not be decoded although they could when they were indexed.
        too_short: by clips, ``[N]`` bool, which videos are shorter than one of them, so that frames repeat.
        seconds: that extraction took now.
        decode_seconds: that reading files took now, added up over all processes.
        cached: whether all of it was there, so that no file was opened.
    """

    features: Mapping[FeatureKey, Tensor]
    labels: Tensor
    rows: Tensor
    video_ids: list[str]
    groups: list[str | None]
    paths: list[str]
    unreadable: Mapping[int, str] = field(default_factory=dict)
    too_short: Mapping[ClipSpec, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    decode_seconds: float = 0.0
    cached: bool = False


@dataclass(frozen=True)
class Pass:
    """What one pass over some videos found.

    Attributes:
        rows: rows of the manifest that could be read, in the order of their features.
        unreadable: reason by row of the others.
        decode_seconds: that reading the files took.
    """

    rows: list[int]
    unreadable: dict[int, str]
    decode_seconds: float


def pixels(spec: ClipSpec) -> ClipSpec:
    """What must be decoded for a spec: the same clips in their own order. Specs that share it share their pixels."""
    return replace(spec, order="normal", pooling="mean")


def extract_features(
    backbones: Mapping[str, Backbone],
    batches: Iterable[Mapping[ClipSpec, ClipBatch]],
    *,
    wanted: Collection[FeatureKey],
    write: Callable[[FeatureKey, Tensor], None],
    device: torch.device,
    seed: int = 0,
    num_threads: int = 1,
    total: int = 0,
    title: str | None = None,
) -> Pass:
    """Runs the backbones, in eval mode, over the clips and hands on their features as they come.

    Args:
        backbones: by name; those wanted are moved to ``device``.
        batches: videos in each of the views ``pixels(spec)`` of what is wanted.
        wanted: names of backbones with clips.
        write: takes the next videos' features ``[b, V, D]`` float32 of one key, on the CPU.
        device: where to compute.
        seed: of shuffled frames.
        num_threads: videos computed at a time, on a CPU.
        total: number of batches, for the progress bar.
        title: what the bar says; None shows none.
    """
    for name in {name for name, _ in wanted}:
        backbones[name].eval().to(device)
    compute = partial(_features_of, backbones, list(wanted), seed)
    rows: list[int] = []
    unreadable: dict[int, str] = {}
    decode_seconds = 0.0
    if title is not None:
        batches = with_progress(batches, total=total, title=title, unit="batch")
    with _workers(device, num_threads) as work:
        for views in batches:
            first = next(iter(views.values()))
            unreadable |= {failure.row: failure.reason for failure in first.failures}
            decode_seconds += first.read_seconds
            rows += first.rows.tolist()
            for features in work(compute, _parts(views, device)):
                for key, values in features.items():
                    write(key, values)
    return Pass(rows, unreadable, decode_seconds)


@dataclass(frozen=True)
class _Part:
    """Videos that go through a backbone together: ``[b, V, C, T, H, W]`` by view."""

    rows: list[int]
    clips: Mapping[ClipSpec, Tensor]


def _parts(views: Mapping[ClipSpec, ClipBatch], device: torch.device) -> Iterator[_Part]:
    """A batch as one part, on a CPU as one part per video."""
    rows = next(iter(views.values())).rows.tolist()
    if not rows:
        return
    if device.type != "cpu":
        yield _Part(rows, {pixel: batch.clips.to(device, non_blocking=True) for pixel, batch in views.items()})
        return
    for place, row in enumerate(rows):
        # Copied: where a tensor begins in memory may change how it is summed, and a part begins anywhere.
        yield _Part([row], {pixel: batch.clips[place : place + 1].clone() for pixel, batch in views.items()})


_Work = Callable[[Callable[[_Part], dict[FeatureKey, Tensor]], Iterable[_Part]], Iterable[dict[FeatureKey, Tensor]]]


@contextmanager
def _workers(device: torch.device, num_threads: int) -> Iterator[_Work]:
    """How parts are worked through: on a CPU each by one thread, several at a time."""
    if device.type != "cpu":
        yield map
        return
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # of an operation; it counts for the threads below too
    try:
        if num_threads == 1:
            yield map
        else:
            with ThreadPoolExecutor(num_threads) as pool:
                yield pool.map
    finally:
        torch.set_num_threads(threads_before)


@torch.inference_mode()
def _features_of(
    backbones: Mapping[str, Backbone], wanted: Sequence[FeatureKey], seed: int, part: _Part
) -> dict[FeatureKey, Tensor]:
    """``[b, V, D]`` of every key."""
    features: dict[FeatureKey, Tensor] = {}
    for pixel, clips in part.clips.items():
        for order in dict.fromkeys(spec.order for _, spec in wanted if pixels(spec) == pixel):
            shown = reorder(clips, order, rows=part.rows, num_crops=NUM_CROPS[pixel.crops], seed=seed)
            for name, backbone in backbones.items():
                own = [spec for other, spec in wanted if other == name and (pixels(spec), spec.order) == (pixel, order)]
                if not own:
                    continue
                pooled = _pool(backbone, shown.flatten(0, 1), {spec.pooling for spec in own})
                for spec in own:
                    features[name, spec] = pooled[spec.pooling].float().cpu().unflatten(0, clips.shape[:2])
    return features


def _pool(backbone: Backbone, clips: Tensor, poolings: Collection[Pooling]) -> dict[Pooling, Tensor]:
    """Features ``[N, D]`` of each kind, of clips ``[N, C, T, H, W]``, by one forward pass where that can be."""
    if "conv5_max" not in poolings:
        return {"mean": backbone(clips)}
    feature_map = backbone.feature_map(clips)
    if min(feature_map.shape[-2:]) < 2:
        raise InputError(
            f"pooling=conv5_max takes maxima over 2 x 2 places, but {type(backbone).__name__} leaves a map of "
            f"{feature_map.shape[-2]} x {feature_map.shape[-1]} of these clips; take larger crops "
            "(input_transform.crop=…), or pooling=mean."
        )
    pooled: dict[Pooling, Tensor] = {"conv5_max": nn.functional.max_pool3d(feature_map, (1, 2, 2)).flatten(1)}
    if "mean" in poolings:
        pools_itself = type(backbone).forward is not Backbone.forward
        pooled["mean"] = backbone(clips) if pools_itself else feature_map.mean(dim=(2, 3, 4))
    return pooled


def reorder(clips: Tensor, order: Order, *, rows: Sequence[int], num_crops: int, seed: int) -> Tensor:
    """Clips ``[b, V, C, T, H, W]`` with the frames of each in another order.

    Args:
        clips: of b videos; the crops of a clip stand together.
        order: of the frames.
        rows: of the videos, for the draw of ``shuffled``.
        num_crops: squares cut out of each clip, which are shuffled alike.
        seed: for the same.
    """
    num_frames = clips.shape[3]
    if order == "normal":
        return clips
    if order == "reversed":
        return clips.flip(3)
    if order == "frozen":
        middle = num_frames // 2
        return clips[:, :, :, middle : middle + 1].expand_as(clips).contiguous()
    return torch.stack(
        [
            torch.stack(
                [
                    clip[:, frame_permutation(num_frames, seed=seed, row=row, clip=view // num_crops)]
                    for view, clip in enumerate(video)
                ]
            )
            for row, video in zip(rows, clips, strict=True)
        ]
    )


def frame_permutation(num_frames: int, *, seed: int, row: int, clip: int) -> Tensor:
    """An order ``[T]`` of the frames that is not their own, unless there is but one; it follows from the arguments."""
    rng = np.random.default_rng([seed, row, clip])
    own = np.arange(num_frames)
    drawn = rng.permutation(num_frames)
    while num_frames > 1 and np.array_equal(drawn, own):
        drawn = rng.permutation(num_frames)
    return torch.from_numpy(drawn)
