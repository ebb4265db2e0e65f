"""The transform of OPN: one patch per tuple, shaken from frame to frame and stripped of its colours."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ssl_video.data.transforms.base import channels_first, check_crop, check_probability


class OPNPatches:
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

    def __call__(self, clips: Tensor) -> Tensor:
        """Turn `[V, T, H, W, 3]` uint8 into `[V, 3, T, size, size]` float32; each clip is one tuple."""
        frames = channels_first(clips)
        if frames.shape[-2:] != (self.patch_size, self.patch_size):
            frames = functional.resize(frames, [self.patch_size, self.patch_size], antialias=True)
        cut = torch.stack([self._one_tuple(patches) for patches in frames])
        return (cut.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format) - self.mean).div_(self.std)

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the (height, width) at which the reader may deliver frames of this size, None for full size."""
        is_larger = height * width > self.patch_size**2
        return (self.patch_size, self.patch_size) if is_larger else None

    def _one_tuple(self, patches: Tensor) -> Tensor:
        """Turn `[T, 3, patch_size, patch_size]` into `[T, 3, size, size]`, both uint8."""
        if torch.rand(()) < self.flip_probability:
            patches = functional.horizontal_flip(patches)
        corner = torch.randint(self.patch_size - self.size + 1, (2,))
        corners = self._shaken(corner, num_frames=len(patches))
        cut = torch.stack(
            [
                patch[:, top : top + self.size, left : left + self.size]
                for patch, (top, left) in zip(patches, corners.tolist(), strict=True)
            ]
        )
        if not self.channel_split:
            return cut
        channels = torch.randint(3, (len(cut),))
        return cut[torch.arange(len(cut)), channels].unsqueeze(1).expand_as(cut)

    def _shaken(self, corner: Tensor, *, num_frames: int) -> Tensor:
        """Return each frame's corner `[T, 2]`: moved along an axis only where that stays off both edges."""
        moved = corner + torch.randint(-self.jitter, self.jitter + 1, (num_frames, 2))
        is_inside = (moved > 0) & (moved + self.size < self.patch_size)
        return torch.where(is_inside, moved, corner)
