"""Made videos of which it is known what can be told of their order: ceilings that no network may pass.

Each generator is a law of videos. What a method that orders frames or clips can reach on it follows from the law, not
from the method, so a method that stays below has a fault, and one that gets above reads something it should not see.

=========  ==========================================================  ====================================
generator  what a video is                                             what can be told
=========  ==========================================================  ====================================
``A``      a blob drifts and grows over a still texture: irreversible  everything
``B``      a blob drifts, in any direction: its reversal is as likely  all but the direction of time
``C``      one still picture, noise of its own on every frame shown    nothing
``D``      every frame shown is a texture of its own                   nothing
``E``      the video of ``A``, asked at palindromic times              half (see ``palindrome``)
=========  ==========================================================  ====================================

In ``A``, ``B`` and ``E`` a time shows the same picture wherever it is asked, so that clips which share a time share a
frame. In ``C`` and ``D`` the noise is drawn per frame *shown*: clips that overlap in time have nothing in common that
they could be matched by.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Generator = Literal["A", "B", "C", "D", "E"]
_STRENGTH = 110.0  # of the blob above the texture, in levels of 255
_TEXTURE = 90.0  # the lightest level of a texture: texture, blob and noise together stay within a byte


def render(
    generator: Generator,
    times: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    size: int = 32,
    duration: int = 64,
    noise: float = 20.0,
) -> NDArray[np.uint8]:
    """Show one video at some times. What the video is, is drawn first; the same ``rng`` state gives the same video.

    Args:
        generator: see the module.
        times: ``[V, T]`` frame numbers in ``0 .. duration - 1``, in the order in which they are to be shown.
        rng: all chance.
        size: pixels in height and width.
        duration: frames of the whole video. The blob crosses half the picture within it, whatever the video, so the
            speed is the same in all videos.
        noise: standard deviation of the noise of ``C``, in levels of 255.

    Returns:
        uint8 ``[V, T, size, size, 3]``.

    Raises:
        ValueError: an unknown generator, or times that are not ``[V, T]`` or lie outside the video.
    """
    if generator not in get_args(Generator):
        raise ValueError(f"generator={generator!r} is not known; there are {', '.join(get_args(Generator))}.")
    if times.ndim != 2 or times.size == 0 or not 0 <= times.min() <= times.max() < duration:
        raise ValueError(f"times of shape {times.shape} must be [V, T] within the video's 0 to {duration - 1}.")
    texture = _texture(rng, (1, 1), size)
    if generator == "C":
        frames = texture + noise * rng.standard_normal((*times.shape, size, size, 3)) + 2 * noise
    elif generator == "D":
        frames = _texture(rng, times.shape, size)
    else:
        shown = palindrome(times) if generator == "E" else times
        blob = _blob(rng, shown / (duration - 1), size=size, grows=generator != "B")
        frames = texture + _STRENGTH * blob[..., None]
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def palindrome(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Times that read the same from both ends: a tuple's frames if there is one clip, else the clips.

    One clip ``[1, n]``: the second half repeats the first from back to front (of four frames x1 = x4 and x2 = x3).
    Several clips ``[V, T]``: the last clips repeat the first ones as a whole, each still in time order (of three, the
    last is the first). Ceilings: sorting four frames 1/3 with orders merged by position, 1/2 by time, 1/4 with none
    merged; ordering three clips 1/2; telling forwards from backwards of one clip 1/2.

    Args:
        times: ``[V, T]``; only its first half counts.

    Returns:
        ``[V, T]``.
    """
    axis = 1 if len(times) == 1 else 0
    places = np.arange(times.shape[axis])
    return np.take(times, np.minimum(places, places[::-1]), axis=axis)


def _blob(rng: np.random.Generator, progress: NDArray[np.float64], *, size: int, grows: bool) -> NDArray[np.float64]:
    """A round blob, 0 to 1, at each progress ``[V, T]`` (0 = first frame, 1 = last) of one video: ``[V, T, H, W]``.

    Position and width are linear in time, and the length of the way between two pictures of a two-dimensional Gaussian
    depends on neither, so pictures grow apart evenly and the nearest in time are the nearest in pixels.
    """
    angle = rng.uniform(0, 2 * np.pi)
    middle = size * rng.uniform(0.4, 0.6, size=2)
    travelled = 0.5 * size * (progress - 0.5)
    x, y = middle[0] + travelled * np.cos(angle), middle[1] + travelled * np.sin(angle)
    width = size * (0.08 + 0.12 * progress) if grows else np.full_like(progress, 0.14 * size)
    grid = np.arange(size)
    squared = (grid - x[..., None, None]) ** 2 + (grid[:, None] - y[..., None, None]) ** 2
    blob: NDArray[np.float64] = np.exp(-squared / (2 * width[..., None, None] ** 2))
    return blob


def _texture(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> NDArray[np.float64]:
    """Random coloured patches of 4 pixels, 0 to ``_TEXTURE``: ``[*shape, H, W, 3]``."""
    patches = -(-size // 4)
    coarse = rng.uniform(0, _TEXTURE, size=(*shape, patches, patches, 3))
    return np.repeat(np.repeat(coarse, 4, axis=-3), 4, axis=-2)[..., :size, :size, :]
