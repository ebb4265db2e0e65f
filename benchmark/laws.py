"""Batches of made videos, through the sampler and the transform of a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
from numpy.typing import NDArray

from ssl_video.data.batch import ClipBatch, Sample, collate
from ssl_video.data.dataset import ClipSampler, ClipTransform, seeded
from ssl_video.data.manifest import Segment
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.solvable_videos import Generator, render

# F is A with shuffled labels; C_h264 is C in files; D_shared shows the same frame at the same time; the ramps are a
# still picture whose light rises or falls, without and with a light of its own on every frame.
LAWS = ("A", "B", "C", "D", "E", "F", "C_h264", "D_shared", "ramp", "ramp_jittered")
SIZE = 48
FILES = Path("outputs/proofs/c_h264")
NUM_FILES = 512


def draw_batch(
    law: str, sampler: ClipSampler, transform: ClipTransform, *, duration: int, size: int, seed: tuple[int, int]
) -> ClipBatch:
    """A batch of videos of a law; the first number of the seed keeps training and held-out videos apart."""
    return collate(
        [
            _sample(
                law, sampler, transform, place, np.random.default_rng([*seed, place]), part=seed[0], duration=duration
            )
            for place in range(size)
        ]
    )


def _sample(
    law: str,
    sampler: ClipSampler,
    transform: ClipTransform,
    place: int,
    rng: np.random.Generator,
    *,
    part: int,
    duration: int,
) -> Sample:
    segment = _segment(duration)
    request = sampler(segment, rng)
    frames = shown(law, request.indices, rng, part=part, duration=duration)
    if request.box is not None:
        frames = np.stack([_cut(clip, box) for clip, box in zip(frames, request.box, strict=True)])
    with seeded(int(rng.integers(2**63))):
        clips = transform(torch.from_numpy(frames))
    return Sample(clips, torch.from_numpy(request.indices), -1, place, place, 0, place)


def shown(
    law: str, times: NDArray[np.int64], rng: np.random.Generator, *, duration: int, part: int = 0
) -> NDArray[np.uint8]:
    """The frames of one video at times ``[V, T]``: uint8 ``[V, T, SIZE, SIZE, 3]``; files of another part differ."""
    if law == "C_h264":
        return _from_file(2 * int(rng.integers(NUM_FILES // 2)) + part, times, duration=duration)
    if law == "D_shared":
        moments, places = np.unique(times, return_inverse=True)
        frames: NDArray[np.uint8] = _rendered("D", moments[None], rng, duration)[0]
        return frames[places.reshape(times.shape)]
    if law.startswith("ramp"):
        picture = _rendered("C", np.zeros((1, 1), dtype=np.int64), rng, duration)[0, 0].astype(np.float64)
        light = 60.0 * (times / (duration - 1) - 0.5) * rng.choice((-1, 1))
        if law == "ramp_jittered":
            light = light + rng.uniform(-120, 120, size=times.shape)
        lit: NDArray[np.uint8] = np.clip(picture + light[..., None, None, None], 0, 255).astype(np.uint8)
        return lit
    return _rendered(law.replace("F", "A"), times, rng, duration)


def _rendered(law: str, times: NDArray[np.int64], rng: np.random.Generator, duration: int) -> NDArray[np.uint8]:
    return render(cast(Generator, law), times, rng=rng, size=SIZE, duration=duration)


def _segment(duration: int) -> Segment:
    return Segment(
        row=0,
        segment_id="made",
        video_id="made",
        path="made.mp4",
        first_frame=0,
        num_frames=duration,
        fps=25.0,
        width=SIZE,
        height=SIZE,
    )


def _cut(clip: NDArray[np.uint8], box: NDArray[Any]) -> NDArray[np.uint8]:
    top, left, height, width = (int(edge) for edge in box)
    return clip[:, top : top + height, left : left + width]


def _from_file(number: int, times: NDArray[np.int64], *, duration: int) -> NDArray[np.uint8]:
    path = FILES / f"{duration}_{number:04d}.mp4"
    if not path.exists():
        _write(path, _rendered("C", np.arange(duration)[None], np.random.default_rng([7, number]), duration)[0])
    reader = DecordReader(path)
    try:
        frames: NDArray[np.uint8] = reader.read(times.reshape(-1)).reshape(*times.shape, SIZE, SIZE, 3)
    finally:
        reader.close()
    return frames


def _write(path: Path, frames: NDArray[np.uint8]) -> None:
    """H.264 with a keyframe every 12 frames, as a camera or a download would have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part.mp4")
    with av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "23", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    temporary.replace(path)
