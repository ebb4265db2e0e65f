"""CaffeNet, the 2D network of shuffle-and-learn, sorting sequences (OPN) and odd-one-out (O3N), in any size."""

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from ssl_video.backbones.frames_2d import Encoding, Frames2D
from ssl_video.utils.errors import InputError

BatchNorm = Literal["none", "plain", "affine"]
Init = Literal["caffenet", "opn", "he"]


class CaffeNet(Frames2D):
    """The five convolutions of CaffeNet (AlexNet with pooling before normalisation), then linear layers or none.

    conv1 - ReLU - pool - LRN - conv2 - ReLU - pool - LRN - conv3 - BN - ReLU - conv4 - BN - ReLU - conv5 - BN - ReLU -
    pool, then each linear layer: Linear - BN - ReLU - dropout. As in the released networks of shuffle-and-learn (Misra
    et al., ECCV 2016; imisra/shuffle-tuple), up to fc7, and OPN (Lee et al., ICCV 2017; HsinYingLee/OPN), up to fc6.
    Features are what the last linear layer gives; without one, the mean of the map after pool5.

    Differs from the originals: colours come as RGB, not BGR. They subtract a mean from pixels in 0..255, and both the
    weights of ``caffenet`` and ``opn`` and the local response norm are made for that scale: normalise with std = 1/255.
    That biases learn twice as fast is left to the optimizer.

    Args:
        input_size: height and width of the frames, which linear layers fix; unused without them.
        fully_connected: features of each linear layer. Shuffle-and-learn has [4096, 4096], OPN [1024], O3N [128].
        batch_norm: after conv3 to conv5 and linear layers: ``plain`` without scale and shift (shuffle-and-learn),
            ``affine`` with them (OPN), or ``none``.
        batch_norm_momentum: weight of a batch in the running statistics; Caffe's 0.001 needs thousands of steps.
        init: ``caffenet``: normal weights of std 0.01 in convolutions and 0.005 in linear layers, biases 0 in conv1 and
            conv3, else 1. ``opn``: biases 0 in all convolutions. ``he``: He et al.'s, for pixels of about unit scale.
        local_response_norm: after the first two poolings.
        dropout: after each linear layer.
        ceil_mode: pool what is left over at the border too, as Caffe does. Equal at 227 pixels; at 80, 112 and 224 the
            last map has one row and one column less without it.
        widths: channels of the five convolutions.
        groups: of conv2, conv4 and conv5.
        stem_kernel: of conv1, which isn't padded.
        stem_stride: of conv1.
        encoding: what the network sees of a clip; see `Frames2D`.
        num_frames: W, frames of an encoded clip.
        in_channels: C, channels of a frame.

    Raises:
        ValueError: sizes or names that don't describe a network.
    """

    def __init__(
        self,
        *,
        input_size: int = 227,
        fully_connected: Sequence[int] = (4096, 4096),
        batch_norm: BatchNorm = "plain",
        batch_norm_momentum: float = 0.001,
        init: Init = "caffenet",
        local_response_norm: bool = True,
        dropout: float = 0.5,
        ceil_mode: bool = True,
        widths: Sequence[int] = (96, 256, 384, 384, 256),
        groups: int = 2,
        stem_kernel: int = 11,
        stem_stride: int = 4,
        encoding: Encoding = "per_frame",
        num_frames: int | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(encoding=encoding, num_frames=num_frames, in_channels=in_channels)
        _check_sizes(widths, fully_connected, groups=groups, stem=(stem_kernel, stem_stride))
        if batch_norm not in get_args(BatchNorm) or init not in get_args(Init):
            raise ValueError(
                f"batch_norm={batch_norm!r} must be one of {', '.join(get_args(BatchNorm))} and init={init!r} one of "
                f"{', '.join(get_args(Init))}; take these."
            )
        self.stem_kernel, self.stem_stride, self.ceil_mode = stem_kernel, stem_stride, ceil_mode
        self.batch_norm, self.batch_norm_momentum = batch_norm, batch_norm_momentum
        self.feature_dim = [*widths, *fully_connected][-1]
        smallest = next(size for size in itertools.count(stem_kernel) if self.map_size(size) > 0)
        if fully_connected and input_size < smallest:
            raise ValueError(
                f"input_size={input_size} must be at least {smallest}, for anything to be left after pool5; take "
                "larger frames, or a smaller stem_kernel or stem_stride."
            )
        self.input_size = input_size if fully_connected else None
        self.min_size = self.input_size or smallest
        self.convolutions = nn.Sequential()
        for place, (before, width) in enumerate(itertools.pairwise([self.image_channels, *widths])):
            if place == 0:
                layers: list[nn.Module] = [nn.Conv2d(before, width, stem_kernel, stem_stride)]
            else:
                size = 5 if place == 1 else 3
                layers = [nn.Conv2d(before, width, size, padding=size // 2, groups=1 if place == 2 else groups)]
            layers += self._norm(nn.BatchNorm2d, width) if place >= 2 else []
            layers.append(nn.ReLU(inplace=True))
            if place in (0, 1, 4):
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=ceil_mode))
            if place in (0, 1) and local_response_norm:
                layers.append(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0))
            self.convolutions.append(nn.Sequential(*layers))
        self.linear = nn.Sequential()
        for before, width in itertools.pairwise([widths[-1] * self.map_size(input_size) ** 2, *fully_connected]):
            layers = [nn.Linear(before, width), *self._norm(nn.BatchNorm1d, width), nn.ReLU(inplace=True)]
            self.linear.append(nn.Sequential(*layers, nn.Dropout(dropout)))
        self._initialise(init)

    def map_size(self, input_size: int) -> int:
        """Height (width) of the map after pool5, of frames of that height (width); 0 where nothing is left."""
        size = (input_size - self.stem_kernel) // self.stem_stride + 1
        for _ in range(3):
            left_over = (size - 3) % 2 if self.ceil_mode else 0
            size = max(0, (size - 3 + left_over) // 2 + 1)
        return size

    def image_map(self, images: Tensor, *, images_per_clip: int) -> Tensor:
        """Map images [M,C',H,W] to the map after pool5 [M,D,h,w]; with linear layers, to what they give [M,D,1,1]."""
        maps: Tensor = self.convolutions(images)
        if self.input_size is None:
            return maps
        features: Tensor = self.linear(maps.flatten(1))
        return features[:, :, None, None]

    def check_clips(self, clips: Tensor) -> None:
        """Refuse clips that this backbone cannot take, also of another size than its linear layers are made for.

        Raises:
            InputError: see `Frames2D.check_clips`.
        """
        size = list(clips.shape[3:])
        if clips.ndim == 5 and self.input_size is not None and size != [self.input_size, self.input_size]:
            raise InputError(
                f"clips of {size[0]}x{size[1]} pixels must be {self.input_size}x{self.input_size} for CaffeNet, whose "
                f"linear layers take maps of one size; crop to that, set backbone.input_size, or leave these layers "
                "out: backbone.fully_connected=[]."
            )
        super().check_clips(clips)

    def _norm(self, kind: type[nn.BatchNorm1d] | type[nn.BatchNorm2d], width: int) -> list[nn.Module]:
        if self.batch_norm == "none":
            return []
        return [kind(width, eps=1e-5, momentum=self.batch_norm_momentum, affine=self.batch_norm == "affine")]

    def _initialise(self, init: Init) -> None:
        layers = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        for place, layer in enumerate(layers):
            linear = isinstance(layer, nn.Linear)
            if init == "he":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.normal_(layer.weight, std=0.005 if linear else 0.01)
            ones = {"caffenet": linear or place in (1, 3, 4), "opn": linear, "he": False}
            assert layer.bias is not None
            nn.init.constant_(layer.bias, float(ones[init]))


def _check_sizes(widths: Sequence[int], fully_connected: Sequence[int], *, groups: int, stem: tuple[int, int]) -> None:
    """Refuse sizes that don't describe a network; `stem` is its kernel and stride."""
    if len(widths) != 5 or min(*widths, *fully_connected, *stem) < 1:
        raise ValueError(
            f"widths={list(widths)} must be five, and these, fully_connected={list(fully_connected)}, "
            f"stem_kernel={stem[0]} and stem_stride={stem[1]} at least 1; give the channels of conv1 to conv5."
        )
    if groups < 1 or any(width % groups for width in widths):
        raise ValueError(
            f"widths={list(widths)} must all be divisible by groups={groups}, which split the channels before and "
            "after conv2, conv4 and conv5; take such widths, or groups=1."
        )
