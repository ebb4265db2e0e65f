"""Turns decoded frames into RGB pixels."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter


class RGBConverter:
    """Converts frames to RGB by their own colour matrix and range, turned as their display matrix says.

    It keeps what FFmpeg sets up for a conversion, from frame to frame and from file to file, which takes several times
    as long as converting a small frame: a frame's own ``to_ndarray`` sets it up every time. Not for several threads.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame) -> np.ndarray:
        """Returns the upright frame as uint8 [H, W, 3], maybe a view of FFmpeg's memory."""
        # One thread: by default a conversion gets as many as the machine has cores.
        converted = self._reformatter.reformat(frame, format="rgb24", threads=1)
        plane, shape = converted.planes[0], (converted.height, converted.width, 3)
        pixels: np.ndarray = np.ndarray(
            shape, dtype=np.uint8, buffer=memoryview(plane), strides=(plane.line_size, shape[2], 1)
        )
        turns = quarter_turns(frame)
        return np.rot90(pixels, k=turns) if turns else pixels


def quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise quarter turns that set a frame upright; broken matrices turn nothing."""
    return frame.rotation // 90 % 4 if frame.rotation % 90 == 0 else 0
