"""Boxes and motion tables reach sampler, reader and transform; what a sampler could not do is counted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_video.data.batch import ClipBatch, collate
from ssl_video.data.dataset import VideoDataset
from ssl_video.data.decoding.decoder import DirectDecoder
from ssl_video.data.manifest import Manifest, Segment
from ssl_video.data.motion import Motion, MotionTables, write_motion
from ssl_video.data.order import SampleKey
from ssl_video.data.readers.base import Cut, FramePart
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.samplers.base import ClipRequest
from ssl_video.data.transforms.base import Drawn, Transform
from ssl_video.utils.errors import UnreadableVideo
from support.videos import numbered_frame, read_frame_numbers, write_video


class Fixed:
    """Asks for what it is told, and keeps the segments it was asked of."""

    num_views, num_frames, frame_stride, min_frames, end_policy = 1, 1, 1, 1, "error"
    uses_motion = True
    asked: ClassVar[list[Segment]] = []

    def __init__(self, request: ClipRequest) -> None:
        self.request = request

    def __call__(self, segment: Segment, rng: np.random.Generator) -> ClipRequest:
        self.asked.append(segment)
        return self.request


WHOLE = FramePart()


class Raw(Transform):
    """Gives the pixels on, and keeps the sizes it was asked about."""

    def __init__(self, part: FramePart = WHOLE) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.part = part

    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        self.sizes += sizes
        return Drawn([self.part] * len(sizes))

    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        return clips.float()


def in_a_corner(path: Path) -> Path:
    """A video of 80 x 96 pixels whose numbered frames stand at (20, 30), 40 x 48 pixels large, in grey surroundings."""
    frames = np.full((30, 80, 96, 3), 128, dtype=np.uint8)
    for number in range(30):
        frames[number, 20:60, 30:78] = numbered_frame(number, 40, 48)
    return write_video(path, frames=frames)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """One video of 25 frames per second; its segment begins with frame 5."""
    root = tmp_path_factory.mktemp("videos")
    in_a_corner(root / "a.mp4")
    record = {"path": "a.mp4", "start_seconds": 0.2, "num_frames": 30, "fps": 25.0, "width": 96, "height": 80}
    return Manifest.from_records([record], root=root)


def dataset(manifest: Manifest, sampler: Any, transform: Any, **more: Any) -> VideoDataset:
    nothing = np.zeros(1, dtype=np.int64)
    arguments: dict[str, Any] = {"rows": nothing, "labels": nothing, "videos": nothing, "seed": 0}
    arguments |= {"decoder": DirectDecoder(DecordReader), "sampler": sampler, "transform": transform}
    return VideoDataset(manifest, **(arguments | more))


KEY = SampleKey(0, 0, 0)


@pytest.mark.parametrize("reader", [DecordReader, PyAVReader])
def test_each_clip_is_cut_to_its_box(manifest: Manifest, reader: Any) -> None:
    indices = np.array([[3, 9, 20], [0, 3, 24]])
    box = np.array([[20, 30, 40, 48], [20, 30, 40, 48]])
    sample = dataset(manifest, Fixed(ClipRequest(indices, box=box)), Raw(), decoder=DirectDecoder(reader))[KEY]
    assert sample.clips is not None
    assert sample.clips.shape == (2, 3, 3, 40, 48)
    for clip, wanted in zip(sample.clips, indices, strict=True):
        assert read_frame_numbers(clip.permute(1, 2, 3, 0).byte().numpy()) == (wanted + 5).tolist()
    assert torch.equal(sample.indices, torch.from_numpy(indices))


def test_boxes_are_in_source_pixels_and_scaled_afterwards(manifest: Manifest) -> None:
    """Boxes of two sizes come out at the one that the transform asks for; it is asked about each box."""
    indices = np.array([[3, 9], [0, 3]])
    box = np.array([[20, 30, 40, 48], [0, 0, 80, 96]])
    transform = Raw(FramePart(size=(20, 24)))
    sample = dataset(manifest, Fixed(ClipRequest(indices, box=box)), transform)[KEY]
    assert sample.clips is not None
    assert sample.clips.shape == (2, 3, 2, 20, 24)
    assert transform.sizes[-2:] == [(40, 48), (80, 96)]
    assert read_frame_numbers(sample.clips[0].permute(1, 2, 3, 0).byte().numpy()) == [8, 14]
    assert (sample.clips[1, :, :, :4] == 128).all()


def test_a_box_outside_the_frame_is_refused(manifest: Manifest) -> None:
    request = ClipRequest(np.array([[3]]), box=np.array([[60, 0, 40, 48]]))
    with pytest.raises(RuntimeError, match="must lie inside the frame"):
        dataset(manifest, Fixed(request), Raw())[KEY]
    with pytest.raises(UnreadableVideo, match="must lie inside the frame"):
        DirectDecoder(DecordReader).decode(manifest.file(0), [Cut(np.array([3]), FramePart((60, 0, 40, 48)))])


def test_the_sampler_gets_the_motion_table(manifest: Manifest, tmp_path: Path) -> None:
    sampler = Fixed(ClipRequest(np.array([[0]])))
    dataset(manifest, sampler, Raw(), motion=MotionTables(tmp_path))[KEY]
    assert sampler.asked[-1].motion is None
    table = Motion(
        np.arange(25, dtype=np.float32), np.zeros((25, 2, 2), dtype=np.float16), np.zeros((25, 64, 64), dtype=np.uint8)
    )
    write_motion(tmp_path, manifest.segment(0), table)
    dataset(manifest, sampler, Raw(), motion=MotionTables(tmp_path))[KEY]
    given = sampler.asked[-1].motion
    assert given is not None
    assert np.array_equal(given.magnitude, table.magnitude)


def test_flags_of_samples_are_counted_by_the_batch(manifest: Manifest) -> None:
    requests = [
        ClipRequest(np.array([[0]])),
        ClipRequest(np.array([[0]]), flags=("no_motion_table",)),
        ClipRequest(np.array([[0]]), flags=("no_motion_table", "frames_too_similar")),
        ClipRequest(np.array([[0]]), within_gaps=False),
    ]
    samples = [dataset(manifest, Fixed(request), Raw())[KEY] for request in requests]
    assert [sample.flags for sample in samples] == [
        (),
        ("no_motion_table",),
        ("no_motion_table", "frames_too_similar"),
        ("outside_gaps",),
    ]
    batch = collate(samples)
    assert isinstance(batch, ClipBatch)
    assert batch.flags == {"no_motion_table": 2, "frames_too_similar": 1, "outside_gaps": 1}
    assert batch.to("cpu").flags == batch.flags
