"""Residual 3D networks of bottleneck blocks: "Slow" R-50 and the R3D-50/101/152 of CVRL, in any width."""

import re
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from ssl_video.backbones.base import Backbone

Triple = tuple[int, int, int]
TimeIn = Literal["first", "second"]


class BottleneckR3D(Backbone):
    """ResNet-50/101/152 with time: Slow-R50 with the default sizes, CVRL's R3D with a stem of 5x7x7 and stride 2.

    Slow-R50 is the slow pathway of SlowFast (Feichtenhofer et al., ICCV 2019) as rho-MoCo has it (arXiv 2104.14558,
    PySlowFast): no stride in time anywhere, temporal kernels in the last two stages only, 31,634,496 parameters; a clip
    [N,3,8,224,224] gives a feature map [N,2048,8,7,7]. CVRL's (Qian et al., CVPR 2021) halves time in its stem:
    31,672,128 parameters. Stride in space sits in the middle convolution of a stage's first block, which has a
    projection shortcut. MSRA initialisation; the last norm of a block starts at 1, not at 0.

    Layers have the names of torchvision's 2D ResNets, so that their weights inflate as they are.
    """

    def __init__(
        self,
        *,
        blocks_per_stage: Sequence[int] = (3, 4, 6, 3),
        base_width: int = 64,
        width_multiplier: int = 1,
        stem_kernel: Sequence[int] = (1, 7, 7),
        stem_stride: Sequence[int] = (1, 2, 2),
        temporal_kernels: Sequence[int] = (1, 1, 3, 3),
        time_in: TimeIn = "first",
        in_channels: int = 3,
    ) -> None:
        """Build the network.

        Args:
            blocks_per_stage: bottleneck blocks in each stage; (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3) are the 50,
                101 and 152 layers.
            base_width: channels of the stem and of the first stage's inner convolutions; each stage doubles them.
            width_multiplier: factor on all channels (the "2x" and "4x" of CVRL).
            stem_kernel: kernel of the stem in time, height, width; odd numbers.
            stem_stride: stride of the stem in time, height, width. A max pooling by (1,2,2) follows.
            temporal_kernels: kernel in time of each stage's blocks; odd numbers.
            time_in: which convolution of a block carries it: the first (t x1x1) or the second (t x3x3).
            in_channels: C, channels of a clip.

        Raises:
            ValueError: sizes that don't describe a network.
        """
        super().__init__()
        _check_sizes(blocks_per_stage, temporal_kernels, width=base_width * width_multiplier)
        kernel, stride = _triple("stem_kernel", stem_kernel), _triple("stem_stride", stem_stride)
        _check_odd("stem_kernel", kernel)
        if time_in not in ("first", "second"):
            raise ValueError(f"time_in={time_in!r} must be 'first' or 'second'; the third convolution is 1x1x1.")
        width = base_width * width_multiplier
        self.in_channels = in_channels
        self.feature_dim = 4 * width * 2 ** (len(blocks_per_stage) - 1)
        self.conv1 = _convolution(in_channels, width, kernel, stride)
        self.bn1 = nn.BatchNorm3d(width)
        self.num_stages = len(blocks_per_stage)
        previous = width
        for stage, (blocks, time) in enumerate(zip(blocks_per_stage, temporal_kernels, strict=True)):
            inner = width * 2**stage
            layers = []
            for block in range(blocks):
                halve = stage > 0 and block == 0
                layers.append(Bottleneck(previous, inner, temporal_kernel=time, time_in=time_in, halve=halve))
                previous = 4 * inner
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,C,T,H,W] to [N,D,t,h,w]; by default t = T, h = ceil(H/32), w = ceil(W/32)."""
        self.check_clips(clips)
        features: Tensor = functional.relu(self.bn1(self.conv1(clips)))
        features = functional.max_pool3d(features, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        for stage in range(self.num_stages):
            features = self.get_submodule(f"layer{stage + 1}")(features)
        return features

    def other_names(self, name: str) -> tuple[str, ...]:
        """PySlowFast's names; torchvision's 2D ResNets have our own."""
        name = re.sub(r"^(conv|bn)1\.", r"s1.pathway0_stem.\1.", name)
        block = re.match(r"layer(\d+)\.(\d+)\.(.*)", name)
        if block:
            inside = re.sub(r"^conv(\d)", lambda found: f"branch2.{'abc'[int(found[1]) - 1]}", block[3])
            inside = re.sub(r"^bn(\d)", lambda found: f"branch2.{'abc'[int(found[1]) - 1]}_bn", inside)
            inside = inside.replace("downsample.0", "branch1").replace("downsample.1", "branch1_bn")
            name = f"s{int(block[1]) + 1}.pathway0_res{block[2]}.{inside}"
        return (name,)


class Bottleneck(nn.Module):
    """1x1x1, 1x3x3, 1x1x1 convolutions with batch norm, one of the first two with time; added to the input."""

    def __init__(
        self, in_channels: int, inner_channels: int, *, temporal_kernel: int, time_in: TimeIn, halve: bool
    ) -> None:
        """Build the block; it gives 4 x inner_channels, `halve` strides space by 2."""
        super().__init__()
        out_channels = 4 * inner_channels
        first, second = (temporal_kernel, 1) if time_in == "first" else (1, temporal_kernel)
        stride = (1, 2, 2) if halve else (1, 1, 1)
        self.conv1 = _convolution(in_channels, inner_channels, (first, 1, 1))
        self.bn1 = nn.BatchNorm3d(inner_channels)
        self.conv2 = _convolution(inner_channels, inner_channels, (second, 3, 3), stride)
        self.bn2 = nn.BatchNorm3d(inner_channels)
        self.conv3 = _convolution(inner_channels, out_channels, (1, 1, 1))
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if halve or in_channels != out_channels:
            self.downsample = nn.Sequential(
                _convolution(in_channels, out_channels, (1, 1, 1), stride), nn.BatchNorm3d(out_channels)
            )

    def forward(self, clips: Tensor) -> Tensor:
        """Map [N,in,t,h,w] to [N,4 inner,t,h',w'], halved in space (rounded up) where the block halves."""
        features = functional.relu(self.bn1(self.conv1(clips)))
        features = functional.relu(self.bn2(self.conv2(features)))
        return functional.relu(self.downsample(clips) + self.bn3(self.conv3(features)))


def _convolution(in_channels: int, out_channels: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Conv3d:
    """A convolution without bias, padded to keep the size at stride 1."""
    time, height, width = kernel
    padding = (time // 2, height // 2, width // 2)
    return nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)


def _triple(name: str, sizes: Sequence[int]) -> Triple:
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(
            f"{name}={list(sizes)} must be three numbers of at least 1 (time, height, width); for example (1, 7, 7)."
        )
    time, height, width = sizes
    return time, height, width


def _check_odd(name: str, sizes: Sequence[int]) -> None:
    if any(size < 1 or size % 2 == 0 for size in sizes):
        raise ValueError(f"{name}={list(sizes)} must be odd, as an even kernel shifts the map; take the next odd one.")


def _check_sizes(blocks_per_stage: Sequence[int], temporal_kernels: Sequence[int], *, width: int) -> None:
    if not blocks_per_stage or len(blocks_per_stage) != len(temporal_kernels) or min(blocks_per_stage) < 1:
        raise ValueError(
            f"blocks_per_stage={list(blocks_per_stage)} must have as many entries as "
            f"temporal_kernels={list(temporal_kernels)}, each at least 1; give one of both per stage."
        )
    _check_odd("temporal_kernels", temporal_kernels)
    if width < 1:
        raise ValueError(f"base_width x width_multiplier = {width} must be at least 1; a layer has a channel or more.")
