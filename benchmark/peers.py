"""Loaders as others write them, re-created to be compared with ours on the same frames of the same files.

Each is given the frame numbers that our sampler draws for the same key, and its random numbers cost no more than there.
What would only cost them time is left out (see each class), so that the comparison rather favours them. They run in the
same DataLoader with as many workers, and open each file with one decoding thread, as several workers share the cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import decord
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms import functional
from torchvision.transforms.v2 import functional as tensor_functional

from ssl_video.data.dataset import ClipSampler
from ssl_video.data.manifest import Manifest
from ssl_video.data.order import SampleKey

Blur = Literal["torchvision", "pil"]
AREA = (0.2, 1.0)
ASPECT = (3 / 4, 4 / 3)
JITTER = (0.4, 0.4, 0.4, 0.1)
JITTER_PROBABILITY = 0.8
GRAY_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMA = (0.1, 2.0)
MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)


@dataclass
class Videos:
    """Files and the frames that are asked of them: those that our data set draws for the same key.

    Attributes:
        manifest: the files.
        sampler: chooses the frames.
        seed: of the run.
    """

    manifest: Manifest
    sampler: ClipSampler
    seed: int

    def file_and_frames(self, key: SampleKey) -> tuple[Path, NDArray[np.int64]]:
        """The file, and frame numbers ``[V, T]``."""
        rng = np.random.default_rng([self.seed, key.epoch, key.position, 0])
        return self.manifest.file(key.row), self.sampler(self.manifest.segment(key.row), rng).indices


class UsualLoader(Dataset[Tensor]):
    """What most code for contrastive learning of videos does: each view on its own, and each frame as a picture.

    One decord reader and one ``get_batch`` for each view; every frame becomes a PIL image, goes through torchvision's
    RandomResizedCrop, ColorJitter, greyscale, Gaussian blur and flip with MoCo v2's settings, and is turned into a
    float tensor; these are stacked and normalised. A clip's frames get the same draw.

    Left out: checks of the file, replacing unreadable ones, and drawing again for every frame, as those do who seed
    their generator anew to get the same numbers.

    Args:
        videos: what is read.
        size: height and width of the clips, pixels.
        blur: ``torchvision``'s on PIL images, over a tenth of the size, or ``pil``: Pillow's own, which MoCo v2's code
            has and which takes half the time.
    """

    def __init__(self, videos: Videos, *, size: int, blur: Blur = "torchvision") -> None:
        self.videos = videos
        self.size = size
        self.blur: Blur = blur

    def __getitem__(self, key: SampleKey) -> Tensor:
        """``[V, C, T, size, size]`` float32."""
        path, frames = self.videos.file_and_frames(key)
        return torch.stack([self._view(path, own) for own in frames])

    def _view(self, path: Path, indices: NDArray[np.int64]) -> Tensor:
        pictures = [Image.fromarray(frame) for frame in open_decord(path).get_batch(indices).asnumpy()]
        box = transforms.RandomResizedCrop.get_params(pictures[0], list(AREA), list(ASPECT))
        looks = MoCoV2Looks.drawn(blur=self.blur)
        tensors = []
        for picture in pictures:
            cropped = functional.resized_crop(picture, *box, [self.size, self.size])
            tensors.append(functional.to_tensor(looks.of(cropped)))
        clip = torch.stack(tensors)
        normalized: Tensor = functional.normalize(clip, list(MEAN), list(STD))
        return normalized.transpose(0, 1)


@dataclass(frozen=True)
class MoCoV2Looks:
    """MoCo v2's photometric augmentation and flip of PIL images, one draw for all frames of a clip."""

    jitter_order: Sequence[int]
    jitter_factors: Sequence[float]
    is_gray: bool
    sigma: float
    is_mirrored: bool
    blur: Blur

    @classmethod
    def drawn(cls, *, blur: Blur) -> MoCoV2Looks:
        """By torch's global generator."""
        jitter = transforms.ColorJitter(*JITTER)
        order, *factors = jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        is_jittered, is_gray, is_blurred, is_mirrored = (
            torch.rand(4) < torch.tensor([JITTER_PROBABILITY, GRAY_PROBABILITY, BLUR_PROBABILITY, 0.5])
        ).tolist()
        sigma = float(torch.empty(()).uniform_(*BLUR_SIGMA)) if is_blurred else 0.0
        return cls(
            jitter_order=order.tolist() if is_jittered else (),
            jitter_factors=[factor or 0.0 for factor in factors],
            is_gray=is_gray,
            sigma=sigma,
            is_mirrored=is_mirrored,
            blur=blur,
        )

    def of(self, picture: Image.Image) -> Image.Image:
        """One frame."""
        adjust = (
            functional.adjust_brightness,
            functional.adjust_contrast,
            functional.adjust_saturation,
            functional.adjust_hue,
        )
        for place in self.jitter_order:
            picture = adjust[place](picture, self.jitter_factors[place])
        if self.is_gray:
            picture = functional.to_grayscale(picture, num_output_channels=3)
        if self.sigma > 0 and self.blur == "pil":
            picture = picture.filter(ImageFilter.GaussianBlur(radius=self.sigma))
        elif self.sigma > 0:
            kernel_size = picture.height // 10 // 2 * 2 + 1
            picture = functional.gaussian_blur(picture, [kernel_size, kernel_size], [self.sigma, self.sigma])
        return functional.hflip(picture) if self.is_mirrored else picture


class VJEPA2Loader(Dataset[Tensor]):
    """The loader of V-JEPA 2, re-created from a description: one pass for all views, no photometric work.

    One decord reader and one ``get_batch`` for the frames of all views, which come in the order of time there; each
    view is cropped by area and aspect, resized to the wanted size and flipped with probability a half.

    Left out: the conversion to float and the normalisation, checks of the file, and replacing unreadable ones.

    Args:
        videos: what is read.
        size: height and width of the clips, pixels.
    """

    def __init__(self, videos: Videos, *, size: int) -> None:
        self.videos = videos
        self.size = size

    def __getitem__(self, key: SampleKey) -> Tensor:
        """``[V, C, T, size, size]`` uint8, the views in the order of time."""
        path, frames = self.videos.file_and_frames(key)
        frames = frames[np.argsort(frames[:, 0], kind="stable")]
        pixels = open_decord(path).get_batch(frames.reshape(-1)).asnumpy()
        clips = torch.from_numpy(pixels).unflatten(0, frames.shape).permute(0, 1, 4, 2, 3)
        return torch.stack([self._view(clip) for clip in clips])

    def _view(self, clip: Tensor) -> Tensor:
        box = transforms.RandomResizedCrop.get_params(clip, list(AREA), list(ASPECT))
        cropped: Tensor = tensor_functional.resized_crop(clip, *box, [self.size, self.size], antialias=True)
        return (cropped.flip(-1) if torch.rand(()) < 0.5 else cropped).transpose(0, 1)


def open_decord(path: Path) -> decord.VideoReader:
    """A reader that decodes in one thread, at full size."""
    return decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
