"""What both decoders share: whole clips are scaled at once, to the pixels that the readers give."""

from pathlib import Path

import numpy as np
import pytest

from ssl_video.data.decoding.decoder import MOST_UNSCALED_BYTES, DirectDecoder, check_clips, scaled, unscaled
from ssl_video.data.readers.base import Cut, FramePart
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.stream import StreamTable, scan
from ssl_video.utils.errors import UnreadableVideo
from support.videos import write_video

PARTS = [
    FramePart(),
    FramePart(box=(3, 5, 30, 40)),
    FramePart(size=(20, 31)),
    FramePart(box=(3, 5, 30, 40), size=(56, 57)),
    FramePart(box=(0, 1, 47, 62), size=(24, 25), window=(3, 4, 20, 19)),
    FramePart(window=(1, 2, 40, 50)),
]


@pytest.mark.parametrize("part", PARTS)
def test_scaling_clips_gives_the_pixels_of_scaling_frames(tmp_path: Path, part: FramePart) -> None:
    file = write_video(tmp_path / "video.mp4", num_frames=20, height=48, width=64)
    cuts = [Cut(np.array([7, 7, 2]), part), Cut(np.arange(0, 20, 3), FramePart())]
    reader = DecordReader(file)
    expected = reader.read_cuts(cuts)
    reader.close()
    got = DirectDecoder(DecordReader).decode(file, cuts)
    assert [clip.dtype for clip in got] == [np.uint8, np.uint8]
    assert all(np.array_equal(one, other) for one, other in zip(got, expected, strict=True))


def test_readers_are_asked_for_boxes_alone(tmp_path: Path) -> None:
    table = scan(write_video(tmp_path / "video.mp4", num_frames=20, height=48, width=64))
    cuts = [Cut(np.arange(4), part) for part in PARTS]
    for known in (None, table):
        asked = unscaled(cuts, known)
        assert [cut.part for cut in asked] == [FramePart(part.box) for part in PARTS]
        assert [cut.indices.tolist() for cut in asked] == [[0, 1, 2, 3]] * len(PARTS)


@pytest.mark.parametrize("box", [None, (0, 0, 1080, 1920)])
def test_parts_that_are_large_together_are_scaled_as_they_come(
    tmp_path: Path, box: tuple[int, int, int, int] | None
) -> None:
    table = _large(scan(write_video(tmp_path / "video.mp4", num_frames=20, height=48, width=64)))
    most = MOST_UNSCALED_BYTES // (3 * 1080 * 1920)
    fitting = [Cut(np.arange(most), FramePart(box, size=(112, 112)))]
    assert unscaled(fitting, table)[0].part.size is None
    large = [*fitting, Cut(np.arange(1), FramePart(box, size=(112, 112)))]
    assert unscaled(large, table) is large
    clips = [np.zeros((len(cut.indices), 112, 112, 3), dtype=np.uint8) for cut in large]
    assert [one is other for one, other in zip(scaled(clips, large, large), clips, strict=True)] == [True, True]


def _large(table: StreamTable) -> StreamTable:
    return StreamTable(**(vars(table) | {"width": 1920, "height": 1080}))


def test_a_window_outside_the_frame_is_refused() -> None:
    clip = np.zeros((2, 10, 10, 3), dtype=np.uint8)
    cuts = [Cut(np.arange(2), FramePart(window=(0, 0, 11, 5)))]
    with pytest.raises(ValueError, match="must lie inside the frame of 10 x 10"):
        scaled([clip], [Cut(np.arange(2))], cuts)


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ((2, 4, 5, 3), np.uint8, "2 of 3 frames came"),
        ((3, 4, 5), np.uint8, "a clip came as uint8"),
        ((3, 4, 5, 4), np.uint8, "a clip came as uint8"),
        ((3, 4, 5, 3), np.int64, "a clip came as int64"),
        ((3, 5, 4, 3), np.uint8, r"frames came as \[5, 4\] pixels instead of \[4, 5\]"),
    ],
)
def test_clips_that_are_not_what_was_asked_for_are_refused(shape: tuple[int, ...], dtype: type, reason: str) -> None:
    cuts = [Cut(np.arange(3), FramePart(box=(0, 0, 4, 5)))]
    check_clips([np.zeros((3, 4, 5, 3), dtype=np.uint8)], cuts)
    with pytest.raises(UnreadableVideo, match=reason):
        check_clips([np.zeros(shape, dtype=dtype)], cuts)


def test_a_file_with_fewer_frames_than_were_indexed_is_unreadable(tmp_path: Path) -> None:
    file = write_video(tmp_path / "video.mp4", num_frames=20, height=48, width=64)
    with pytest.raises(UnreadableVideo, match=r"frame 20 of video\.mp4"):
        DirectDecoder(DecordReader).decode(file, [Cut(np.array([20]))])
