"""Thumbnails are what they say: animated, of the frames given, with the box where it belongs."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from ssl_video.report.pictures import VERMILLION, animated_webp, data_uri, shown_size, with_box


def flat_frames(*levels: int) -> np.ndarray:
    return np.stack([np.full((24, 32, 3), level, dtype=np.uint8) for level in levels])


def test_every_frame_is_shown_in_order_for_its_time() -> None:
    with Image.open(io.BytesIO(animated_webp(flat_frames(20, 120, 220), milliseconds=80))) as picture:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
        assert picture.format == "WEBP" and picture.info["loop"] == 0
        assert picture.info["duration"] == 80
    assert [round(float(frame.mean())) for frame in frames] == pytest.approx([20, 120, 220], abs=4)
    assert frames[0].shape == (24, 32, 3)


def test_the_address_holds_the_picture() -> None:
    webp = animated_webp(flat_frames(5, 50))
    head, _, body = data_uri(webp).partition(",")
    assert head == "data:image/webp;base64"
    assert base64.b64decode(body) == webp


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (4, 4, 3), (2, 4, 4, 1)])
def test_what_is_no_clip_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \[T, H, W, 3\]"):
        animated_webp(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(240, 320, (80, 107)), (320, 240, (107, 80)), (40, 400, (80, 160)), (64, 64, (80, 80))],
)
def test_the_short_side_is_kept_and_very_long_ones_are_bounded(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    assert shown_size(height, width, short_side=80) == expected


def test_the_box_is_drawn_on_its_frames_and_the_others_are_pale() -> None:
    frames = np.full((4, 16, 16, 3), 40, dtype=np.uint8)
    drawn = with_box(frames, (1, 3, 4, 12, 2, 6), short_side=64)
    assert drawn.shape == (4, 64, 64, 3)
    assert [int(frame[0, 0, 0]) for frame in drawn] == [147, 40, 40, 147]  # half-way to white outside
    coloured = (drawn[1] == np.array(VERMILLION)).all(axis=-1)
    rows, columns = np.nonzero(coloured)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 47, 8, 23)
    assert not (drawn[0] == np.array(VERMILLION)).all(axis=-1).any()


def test_without_a_box_frames_are_only_enlarged() -> None:
    drawn = with_box(np.full((2, 16, 16, 3), 40, dtype=np.uint8), None, short_side=32)
    assert drawn.shape == (2, 32, 32, 3)
    assert (drawn == 40).all()
