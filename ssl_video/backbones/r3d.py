"""R3D, the residual 3D network of clip order prediction, in any size."""

import re
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

from ssl_video.backbones.base import Backbone

Triple = tuple[int, int, int]

# What the official code calls the layers of a block.
_BLOCK_LAYERS = {
    "residual.0": "conv1",
    "residual.1": "bn1",
    "residual.3": "conv2",
    "residual.4": "bn2",
    "shortcut.0": "downsampleconv",
    "shortcut.1": "downsamplebn",
}


class R3D(Backbone):
    """R3D as in VCOP (Xu et al., CVPR 2019; official code `models/r3d.py`): about R3D-10, not torchvision's R3D-18.

    A stem convolution of stride (1,2,2), then one stage per width. Every stage but the first halves time and space in
    its first block, and only those blocks have a projection shortcut (strided 1x1x1 convolution and batch norm).
    Convolutions have no bias; weights start from PyTorch's default. With the default sizes it has 14,361,792
    parameters and a clip [N,3,16,112,112] gives a feature map [N,512,2,7,7].
    """

    def __init__(
        self,
        *,
        blocks_per_stage: Sequence[int] = (1, 1, 1, 1),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_kernel: Sequence[int] = (3, 7, 7),
        in_channels: int = 3,
    ) -> None:
        """Build the network.

        Args:
            blocks_per_stage: residual blocks in each stage.
            widths: channels of each stage, as many as stages; the stem has the first one's, D is the last one.
            stem_kernel: kernel of the stem in time, height, width; odd numbers.
            in_channels: C, channels of a clip.

        Raises:
            ValueError: sizes that don't describe a network.
        """
        super().__init__()
        kernel = _check_sizes(blocks_per_stage, widths, stem_kernel)
        self.in_channels = in_channels
        self.feature_dim = widths[-1]
        self.stem = nn.Sequential(
            self.convolution(in_channels, widths[0], kernel=kernel, stride=(1, 2, 2)),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential()
        previous = widths[0]
        for stage, (blocks, width) in enumerate(zip(blocks_per_stage, widths, strict=True)):
            layers = [ResidualBlock(previous, width, halve=stage > 0, convolution=self.convolution)]
            layers += [
                ResidualBlock(width, width, halve=False, convolution=self.convolution) for _ in range(blocks - 1)
            ]
            self.stages.append(nn.Sequential(*layers))
            previous = width

    @staticmethod
    def convolution(in_channels: int, out_channels: int, *, kernel: Triple, stride: Triple) -> nn.Module:
        """One convolution of the network, padded to keep the size at stride 1; a subclass may factorise it."""
        time, height, width = kernel
        padding = (time // 2, height // 2, width // 2)
        return nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,C,T,H,W] to [N,D,t,h,w]; with four stages t = ceil(T/8), h = ceil(H/16), w = ceil(W/16)."""
        self.check_clips(clips)
        features: Tensor = self.stages(self.stem(clips))
        return features

    def other_names(self, name: str) -> tuple[str, ...]:
        """The official code's names, which stand behind `base_network.` in the files of clip order prediction."""
        stem = re.match(r"stem\.([01])\.(.*)", name)
        if stem:
            return (f"conv1.{self.convolution_name(stem[2])}" if stem[1] == "0" else f"bn1.{stem[2]}",)
        found = re.match(r"stages\.(\d+)\.(\d+)\.(\w+\.\d)\.(.*)", name)
        if found is None:
            return (name,)
        stage, block, layer, inside = int(found[1]), int(found[2]), _BLOCK_LAYERS[found[3]], found[4]
        place = "block1" if block == 0 else f"blocks.{block - 1}"
        return (f"conv{stage + 2}.{place}.{layer}.{self.convolution_name(inside) if 'conv' in layer else inside}",)

    @staticmethod
    def convolution_name(name: str) -> str:
        """The official code's name of what is `name` within `convolution`."""
        return f"temporal_spatial_conv.{name}"


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions with batch norm, added to the input or, where the block halves, to its projection."""

    def __init__(
        self, in_channels: int, out_channels: int, *, halve: bool, convolution: Callable[..., nn.Module]
    ) -> None:
        """Build the block; `halve` strides time and space by 2, `convolution` is the network's kind of one."""
        super().__init__()
        if not halve and in_channels != out_channels:
            raise ValueError(
                f"in_channels={in_channels} must equal out_channels={out_channels} in a block without stride; "
                "only a block that halves has a projection shortcut."
            )
        stride = (2, 2, 2) if halve else (1, 1, 1)
        self.residual = nn.Sequential(
            convolution(in_channels, out_channels, kernel=(3, 3, 3), stride=stride),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
            convolution(out_channels, out_channels, kernel=(3, 3, 3), stride=(1, 1, 1)),
            nn.BatchNorm3d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if halve:
            self.shortcut = nn.Sequential(
                convolution(in_channels, out_channels, kernel=(1, 1, 1), stride=stride),
                nn.BatchNorm3d(out_channels),
            )

    def forward(self, clips: Tensor) -> Tensor:
        """Map [N,in,t,h,w] to [N,out,t',h',w'], halved (rounded up) where the block halves."""
        return functional.relu(self.shortcut(clips) + self.residual(clips))


def _check_sizes(blocks_per_stage: Sequence[int], widths: Sequence[int], stem_kernel: Sequence[int]) -> Triple:
    """Refuse sizes that don't describe a network; give the stem's kernel as a triple."""
    if not widths or len(blocks_per_stage) != len(widths):
        raise ValueError(
            f"blocks_per_stage={list(blocks_per_stage)} must have as many entries as widths={list(widths)}, "
            "and at least one; give one number of blocks and one width per stage."
        )
    if min(blocks_per_stage) < 1 or min(widths) < 1:
        raise ValueError(
            f"blocks_per_stage={list(blocks_per_stage)} and widths={list(widths)} must all be at least 1; "
            "leave a stage out of both to drop it."
        )
    if len(stem_kernel) != 3 or any(size < 1 or size % 2 == 0 for size in stem_kernel):
        raise ValueError(
            f"stem_kernel={list(stem_kernel)} must be three odd sizes (time, height, width), as an even one shifts "
            "the map; for example (3, 7, 7)."
        )
    time, height, width = stem_kernel
    return time, height, width
