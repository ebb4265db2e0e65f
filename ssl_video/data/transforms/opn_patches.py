"""The transform of OPN: one patch per tuple, shaken from frame to frame and stripped of its colours."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssl_video.data.readers.base import FramePart
from ssl_video.data.transforms.base import Drawn, Transform, check_crop, check_probability, mirror_, moved


class OPNPatches(Transform):
    """Mirror the tuple, cut a square near one place in all frames, and show one colour channel of each.

    OPN (Lee et al., ICCV 2017), as in the released code: from a patch of 100 pixels, mirrored with the whole tuple, a
    square of 80 is cut at one corner drawn for the tuple; each frame's corner is then moved by up to 5 pixels along
    either axis, where that keeps a margin on both sides, and each frame shows one of its colour channels, drawn by
    itself, three times. 96.5 is subtracted from pixels in 0..255. So neither fixed pixels nor the drift of colours
    along a video, or across a lens, tell the order.

    The patch itself is the sampler's: it comes cut out, and is scaled to `patch_size` where it has another size.

    Args:
        patch_size: side of the patch, in pixels.
        size: side of the square that is given out.
        jitter: furthest that a frame is moved along an axis, in pixels; 0 keeps all frames at one place.
        channel_split: show one channel of each frame; False keeps the colours.
        flip_probability: of mirroring left and right.
        mean: subtracted from pixels in 0..255.
        std: divides what is left; 1 as in the released code, whose weights start fit for pixels of that scale.
    """

    def __init__(
        self,
        *,
        patch_size: int = 100,
        size: int = 80,
        jitter: int = 5,
        channel_split: bool = True,
        flip_probability: float = 0.5,
        mean: float = 96.5,
        std: float = 1.0,
    ) -> None:
        check_crop(size, resize=patch_size)
        check_probability("flip_probability", flip_probability)
        if jitter < 0:
            raise ValueError(f"jitter={jitter} must be at least 0 pixels.")
        if std <= 0:
            raise ValueError(f"std={std} must be above 0; the clips are divided by it.")
        self.patch_size = patch_size
        self.size = size
        self.jitter = jitter
        self.channel_split = channel_split
        self.flip_probability = flip_probability
        self.mean = mean
        self.std = std

    def draw(self, sizes: Sequence[tuple[int, int]], *, num_frames: int) -> Drawn:
        """Draw mirroring, corners and channels of each tuple."""
        parts: list[list[FramePart]] = []
        mirrored, channels = [], []
        for _ in sizes:
            mirrored.append(torch.rand(()) < self.flip_probability)
            corner = torch.randint(self.patch_size - self.size + 1, (2,))
            corners = self._shaken(corner, num_frames=num_frames).tolist()
            # What is cut of the mirrored patch lies at the other side of the patch as it comes.
            lefts = [self.patch_size - self.size - left if mirrored[-1] else left for _, left in corners]
            parts.append([self._part(top, left) for (top, _), left in zip(corners, lefts, strict=True)])
            channels.append(torch.randint(3, (num_frames,)) if self.channel_split else torch.full((num_frames,), -1))
        return Drawn(parts, {"mirrored": torch.stack(mirrored), "channels": torch.stack(channels)})

    def finish(self, clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Turn `[N, 3, T, size, size]` uint8 into float32 of the same shape."""
        if self.channel_split:
            channels = moved(values["channels"], clips.device)[:, None, :, None, None]
            clips = clips.gather(1, channels.expand(-1, 1, -1, *clips.shape[-2:]))
        finished = clips.to(torch.float32, memory_format=torch.contiguous_format).sub_(self.mean).div_(self.std)
        return mirror_(finished, values["mirrored"]).expand(-1, 3, -1, -1, -1).contiguous()

    def _part(self, top: int, left: int) -> FramePart:
        return FramePart(size=(self.patch_size, self.patch_size), window=(top, left, self.size, self.size))

    def _shaken(self, corner: Tensor, *, num_frames: int) -> Tensor:
        """Return each frame's corner `[T, 2]`: moved along an axis only where that stays off both edges."""
        moved = corner + torch.randint(-self.jitter, self.jitter + 1, (num_frames, 2))
        is_inside = (moved > 0) & (moved + self.size < self.patch_size)
        return torch.where(is_inside, moved, corner)
