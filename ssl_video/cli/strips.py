"""The clips that enter a method's networks, each told from its video and frames, and one picture of them.

Nothing is asked of the method: its backbones are watched while it computes its losses. The same computation is then
repeated, with the same random draws, on clips whose pixels are their own frame numbers, which tells what is where.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import SSLMethod

TILE = 96  # pixels of a frame in the picture
MARGIN = 12
LINE = 18
CODE = 500_000  # frame numbers lie below; float32 holds 33 videos of so many frames exactly


@dataclass(frozen=True)
class Strip:
    """One clip as it enters a backbone.

    Attributes:
        video: place of its video in the batch; None where a clip mixes videos.
        network: name of the network in the method.
        frames: ``[T]`` numbers of the frames, in the order they are presented; -1 where frames are mixed.
        images: ``[T, H, W, 3]`` in [0, 1].
    """

    video: int | None
    network: str
    frames: list[int]
    images: NDArray[np.float32]


def watch(method: SSLMethod[Any], batch: Any, *, seed: int) -> list[Strip]:
    """Every clip that enters one of the method's backbones while it computes the losses of a batch."""
    seen = _inputs(method, batch, seed=seed)
    places = {row: place for place, row in enumerate(rows_of(batch))}
    codes = _inputs(method, _map_clips(batch, lambda clips: _frame_codes(clips, places)), seed=seed)
    return [
        _strip(network, clip, code)
        for (network, clips), (_, coded) in zip(seen, codes, strict=True)
        for clip, code in zip(clips, coded, strict=True)
    ]


def _inputs(method: SSLMethod[Any], batch: Any, *, seed: int) -> list[tuple[str, Tensor]]:
    """Name of the network and its clips ``[N, C, T, H, W]``, for every call of a backbone."""
    with _watched(method) as inputs, torch.no_grad():
        torch.manual_seed(seed)
        method.losses(batch)
    return inputs


@contextmanager
def _watched(method: SSLMethod[Any]) -> Iterator[list[tuple[str, Tensor]]]:
    # A backbone looks at its clips first of all, whichever of its outputs is asked for.
    inputs: list[tuple[str, Tensor]] = []
    backbones = {name: module for name, module in method.named_modules() if isinstance(module, Backbone)}
    for name, backbone in backbones.items():
        backbone.check_clips = _recorder(name.split(".")[0], backbone.check_clips, inputs)  # type: ignore
    try:
        yield inputs
    finally:
        for backbone in backbones.values():
            del backbone.check_clips


def _recorder(name: str, check: Callable[[Tensor], None], inputs: list[tuple[str, Tensor]]) -> Callable[[Tensor], None]:
    def record(clips: Tensor) -> None:
        check(clips)
        inputs.append((name, clips.detach().clone()))

    return record


def _frame_codes(batch: ClipBatch, places: dict[int, int]) -> ClipBatch:
    """The batch with every pixel replaced by video * CODE + frame number; a video is told by its row's place."""
    numbers = torch.tensor([places[row] for row in batch.rows.tolist()])[:, None, None] * CODE + batch.indices
    return replace(batch, clips=numbers[:, :, None, :, None, None].expand_as(batch.clips).to(torch.float32))


def _strip(network: str, clip: Tensor, code: Tensor) -> Strip:
    """One clip ``[C, T, H, W]`` with the frame numbers read from its code."""
    by_frame = code.transpose(0, 1).flatten(1)
    pure = bool((by_frame == by_frame[:, :1]).all() and (by_frame == by_frame.round()).all())
    numbers = by_frame[:, 0].to(torch.int64)
    videos = set((numbers // CODE).tolist())
    alone = pure and len(videos) == 1
    frames = (numbers % CODE).tolist() if alone else [-1] * clip.shape[1]
    images = clip[:3].permute(1, 2, 3, 0)
    low, high = images.min(), images.max()
    shown = ((images - low) / (high - low).clamp_min(1e-6)).numpy()
    return Strip(videos.pop() if alone else None, network, frames, shown)


def answers_of(method: SSLMethod[Any], batch: Any, *, seed: int) -> list[int] | None:
    """The right answer of each video's question, for methods that ask one."""
    questions = getattr(method, "questions", None)
    if questions is None:
        return None
    with torch.no_grad():
        torch.manual_seed(seed)
        labels: Tensor = questions(batch)[1]
    answers: list[int] = labels.tolist()
    return answers if len(answers) == len(batch) else None


def draw(strips: Sequence[Strip], *, titles: Sequence[str], answers: Sequence[int] | None) -> Image.Image:
    """One block per video: its title and right answer, then its clips with the frames' numbers beneath."""
    blocks: dict[int | None, list[Strip]] = defaultdict(list)
    for strip in strips:
        blocks[strip.video].append(strip)
    # Single frames of one video and network follow each other in one row.
    rows = {video: list(joined(block)) for video, block in blocks.items()}
    font = ImageFont.load_default(size=13)
    width = max(len(row.frames) for block in rows.values() for row in block) * (TILE + 2) + 2 * MARGIN
    width = max(width, 480)
    height = MARGIN + sum(2 * LINE + len(block) * (TILE + 2 * LINE) for block in rows.values())
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    top = MARGIN
    for video, block in sorted(rows.items(), key=lambda item: (item[0] is None, item[0])):
        pen.text((MARGIN, top), _title(video, titles, answers), fill="black", font=font)
        top += LINE + 4
        for row in block:
            pen.text((MARGIN, top), row.network, fill="#666666", font=font)
            top += LINE
            for place, (number, image) in enumerate(zip(row.frames, row.images, strict=True)):
                left = MARGIN + place * (TILE + 2)
                tile = Image.fromarray((image * 255).astype(np.uint8))
                picture.paste(tile.resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
                pen.text((left + 2, top + TILE), str(number) if number >= 0 else "mixed", fill="#1a4f8a", font=font)
            top += TILE + LINE
        top += LINE - 4
    return picture.crop((0, 0, width, top))


def _title(video: int | None, titles: Sequence[str], answers: Sequence[int] | None) -> str:
    if video is None:
        return "clips that mix videos"
    if video >= len(titles):
        return f"video {video}"
    return titles[video] + (f"     answer: {answers[video]}" if answers is not None else "")


def joined(block: Sequence[Strip]) -> Iterator[Strip]:
    """Strips, with single frames of one network that follow each other put into one row."""
    run: list[Strip] = []
    for strip in block:
        if run and (len(strip.frames) > 1 or len(run[-1].frames) > 1 or strip.network != run[-1].network):
            yield _concatenated(run)
            run = []
        run.append(strip)
    yield _concatenated(run)


def _concatenated(run: Sequence[Strip]) -> Strip:
    frames = [number for strip in run for number in strip.frames]
    return replace(run[0], frames=frames, images=np.concatenate([strip.images for strip in run]))


def first_videos(batch: Any, number: int) -> Any:
    """A batch whose tensors are cut to their first rows, in all its parts."""
    if isinstance(batch, Tensor):
        return batch[:number]
    if isinstance(batch, dict):
        return {name: first_videos(value, number) for name, value in batch.items()}
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: first_videos(getattr(batch, f.name), number) for f in fields(batch)})
    return batch


def _map_clips(batch: Any, change: Callable[[ClipBatch], ClipBatch]) -> Any:
    """A batch with a change made to each ClipBatch in it: itself, its fields, or the values of a dict."""
    if isinstance(batch, ClipBatch):
        return change(batch)
    if isinstance(batch, dict):
        return {name: _map_clips(value, change) for name, value in batch.items()}
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: _map_clips(getattr(batch, f.name), change) for f in fields(batch)})
    return batch


def _clip_batches(batch: Any) -> list[ClipBatch]:
    found: list[ClipBatch] = []

    def note(clips: ClipBatch) -> ClipBatch:
        found.append(clips)
        return clips

    _map_clips(batch, note)
    return found


def rows_of(batch: Any) -> list[int]:
    """Rows of the manifest, each once, in the order of the batch's parts."""
    return list(dict.fromkeys(row for clips in _clip_batches(batch) for row in clips.rows.tolist()))
