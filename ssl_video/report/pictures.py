"""Small moving pictures: animated WebP, which every current browser plays without a player or a network."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

VERMILLION = (213, 94, 0)


def animated_webp(frames: np.ndarray, *, milliseconds: int = 100, quality: int = 50) -> bytes:
    """A looping animation.

    Args:
        frames: uint8 ``[T, H, W, 3]``.
        milliseconds: that each frame is shown.
        quality: 0 to 100, of the lossy compression.

    Raises:
        ValueError: frames of another shape, or none.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"frames of shape {frames.shape} must be [T, H, W, 3] with one frame or more.")
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=images[1:],
        duration=milliseconds,
        loop=0,
        quality=quality,
        method=2,  # slower ones save little
    )
    return buffer.getvalue()


def data_uri(webp: bytes) -> str:
    """The picture as an address that needs no file."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode("ascii")


def shown_size(height: int, width: int, *, short_side: int) -> tuple[int, int]:
    """Height and width with the short side given and the aspect kept; very long videos are cut off at 2:1."""
    scale = short_side / min(height, width)
    return min(2 * short_side, round(height * scale)), min(2 * short_side, round(width * scale))


def with_box(frames: np.ndarray, box: tuple[int, int, int, int, int, int] | None, *, short_side: int) -> np.ndarray:
    """Enlarges frames and draws a part of the clip on those frames that it covers.

    Args:
        frames: uint8 ``[T, H, W, 3]``.
        box: first and last + 1 frame, row and column: ``(t0, t1, y0, y1, x0, x1)``; None draws nothing.
        short_side: of the result, in pixels.

    Returns:
        uint8 ``[T, H', W', 3]``; frames outside the box are dimmed.
    """
    height, width = shown_size(*frames.shape[1:3], short_side=short_side)
    drawn = []
    for number, frame in enumerate(frames):
        image = Image.fromarray(np.ascontiguousarray(frame)).resize((width, height), Image.Resampling.BICUBIC)
        if box is not None:
            first, last, top, bottom, left, right = box
            down, across = height / frame.shape[0], width / frame.shape[1]
            if first <= number < last:
                corners = (left * across, top * down, right * across - 1, bottom * down - 1)
                ImageDraw.Draw(image).rectangle(corners, outline=VERMILLION, width=2)
            else:
                image = Image.blend(image, Image.new("RGB", image.size, "white"), 0.5)
        drawn.append(np.asarray(image))
    return np.stack(drawn)
