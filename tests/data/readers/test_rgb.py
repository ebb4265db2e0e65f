import itertools
from pathlib import Path

import av
import numpy as np
import pytest

from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.rgb import RGBConverter
from support import videos

FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "gray")
MATRICES, RANGES = (1, 2, 5, 9), (0, 1, 2)  # BT.709, unknown, BT.601, BT.2020; unknown, limited, full


def noise(pixel_format: str, height: int, width: int, *, matrix: int = 2, color_range: int = 0) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, pixel_format)
    rng = np.random.default_rng(height)
    for plane in frame.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, dtype=np.uint8).tobytes())
    frame.colorspace, frame.color_range = matrix, color_range
    return frame


def test_what_is_kept_from_other_frames_changes_no_pixel() -> None:
    converter = RGBConverter()
    kinds = list(itertools.product(FORMATS, MATRICES, RANGES, ((64, 96), (33, 47))))
    np.random.default_rng(0).shuffle(kinds)
    for pixel_format, matrix, color_range, (height, width) in kinds:
        frame = noise(pixel_format, int(height), int(width), matrix=int(matrix), color_range=int(color_range))
        np.testing.assert_array_equal(converter.convert(frame), frame.to_ndarray(format="rgb24"))


def test_pixels_outlive_the_frame_and_the_next_one() -> None:
    converter = RGBConverter()
    frame = noise("yuv420p", 64, 96)
    expected = frame.to_ndarray(format="rgb24")
    pixels = converter.convert(frame)
    del frame
    for height in (64, 80, 64):
        converter.convert(noise("yuv444p", height, 96))
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("size", [(80, 96), (81, 97)])
def test_files_of_different_kinds_one_after_the_other(tmp_path: Path, size: tuple[int, int]) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    encodings = [videos.H264_RGB, videos.Encoding(pixel_format="yuv444p")]
    for turn, encoding in enumerate(encodings * 2):
        path = videos.write_video(tmp_path / f"{turn}.mkv", frames=pictures, encoding=encoding)
        frames = PyAVReader(path).read([2, 0])
        assert np.abs(frames.astype(int) - pictures[[2, 0]]).max() <= (0 if encoding is videos.H264_RGB else 4)
