"""Pictures as files."""

import io

import numpy as np
from PIL import Image

from ssl_video.utils.pictures import ClipTable, Still, clips_of, gif, jpeg, png, tiled

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)


def test_a_gif_loops_over_all_frames() -> None:
    flat = np.repeat(np.array([[10, 200, 30], [250, 0, 0], [0, 0, 255]], dtype=np.uint8), 48, axis=0)
    clip = flat.reshape(3, 8, 6, 3)
    read = Image.open(io.BytesIO(gif(clip, milliseconds=120)))
    assert (read.n_frames, read.size, read.info["loop"], read.info["duration"]) == (3, (6, 8), 0, 120)
    for number, frame in enumerate(clip):
        read.seek(number)
        assert np.abs(np.asarray(read.convert("RGB")).astype(int) - frame).max() <= 8


def test_one_frame_is_a_gif_too() -> None:
    assert Image.open(io.BytesIO(gif(FRAMES[:1]))).n_frames == 1


def test_a_png_is_exact_and_a_jpeg_is_near() -> None:
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(smooth)))), smooth)
    assert np.abs(np.asarray(Image.open(io.BytesIO(jpeg(smooth)))).astype(int) - smooth).mean() < 4


def test_tiles_of_other_lengths_and_sizes_play_together() -> None:
    dark, bright = np.full((2, 5, 7, 3), 10, dtype=np.uint8), np.full((3, 9, 9, 3), 240, dtype=np.uint8)
    bright[2] = 250
    board = tiled([dark, bright, dark], columns=2, side=4)
    assert board.shape == (3, 16, 16, 3)
    assert (board[:, 0:4, 0:4] == 10).all()
    assert board[:, 0, 8, 0].tolist() == [240, 240, 250]
    assert (board[2, 8:12, 0:4] == 10).all()
    assert (board[:, 8:, 8:] == 255).all()


def test_clips_are_found_in_a_table() -> None:
    table = ClipTable(("a", "b"), [("x", FRAMES), (FRAMES[:1], 3)], Still(FRAMES[0], ""))
    assert [len(clip) for clip in clips_of(table)] == [5, 1]
