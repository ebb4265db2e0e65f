"""TSM-ResNet: torchvision's 2D residual network, whose blocks see a part of their neighbour frames' channels."""

import re
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from ssl_video.backbones.frames_2d import Frames2D

ShiftOn = Literal["block_input", "residual"]


class TSMResNet(Frames2D):
    """A 2D ResNet with the temporal shift module (Lin et al., ICCV 2019) in every block, as TCL trains it from scratch.

    Before each block the first 1/shift_div of the channels are taken from the next frame and as many from the frame
    before, with zeros where there is none; the shift follows the clip at hand, so clips of 8 and 4 frames may come in
    turn. In TCL (Singh et al., CVPR 2021; CVIR/TCL) it moves the block's whole input, shortcut included; TSM itself
    moves what the residual branch sees (``shift_on="residual"``). A clip's features are the mean of its frames'; TCL's
    classifier, which averages logits of frames after dropout, is built on `frame_features`.

    Blocks and their initial weights are torchvision's: a bottleneck has its stride in the 3x3 convolution. Depths with
    23 blocks in a stage aren't meant: there the original shifts every second block only.

    Args:
        blocks_per_stage: residual blocks in each stage; 18: [2, 2, 2, 2], 34 and 50: [3, 4, 6, 3].
        widths: channels of each stage, before a bottleneck's fourfold; the stem has the first one's.
        bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions, as from depth 50 on, instead of two of 3x3.
        shift_div: C // shift_div channels move each way.
        shift_on: ``block_input`` (TCL) or ``residual`` (TSM).
        stem_kernel: of the first convolution, of stride 2; an odd number.
        stem_pool: a max pooling of stride 2 after it.
        in_channels: C, channels of a frame.

    Raises:
        ValueError: sizes that don't describe a network, or of which nothing would be shifted.
    """

    def __init__(
        self,
        *,
        blocks_per_stage: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        bottleneck: bool = False,
        shift_div: int = 8,
        shift_on: ShiftOn = "block_input",
        stem_kernel: int = 7,
        stem_pool: bool = True,
        in_channels: int = 3,
    ) -> None:
        super().__init__(in_channels=in_channels)
        _check(blocks_per_stage, widths, shift_div=shift_div, shift_on=shift_on, stem_kernel=stem_kernel)
        block = ShiftedBottleneck if bottleneck else ShiftedBasicBlock
        self.shift_div, self.shift_on = shift_div, shift_on
        self.feature_dim = widths[-1] * block.expansion
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], stem_kernel, stride=2, padding=stem_kernel // 2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        if stem_pool:
            self.stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        self.blocks = nn.ModuleList()
        self.places: list[str] = []  # of the blocks, as torchvision names them
        before = widths[0]
        for stage, (blocks, width) in enumerate(zip(blocks_per_stage, widths, strict=True)):
            for place in range(blocks):
                stride = 2 if stage > 0 and place == 0 else 1
                self.blocks.append(block(before, width, stride, _projection(before, width * block.expansion, stride)))
                self.places.append(f"layer{stage + 1}.{place}")
                before = width * block.expansion
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def other_names(self, name: str) -> tuple[str, ...]:
        """Names of torchvision's 2D ResNet of the same depth, whose tensors have the same shapes."""
        inside = re.sub(r"^blocks\.(\d+)", lambda found: self.places[int(found[1])], name)
        return (re.sub(r"^stem\.1\.", "bn1.", re.sub(r"^stem\.0\.", "conv1.", inside)),)

    def image_map(self, images: Tensor, *, images_per_clip: int) -> Tensor:
        """Map images [M,C,H,W] to [M,D,h,w]; with the pooling and four stages h = ceil(H/32), w = ceil(W/32)."""
        maps: Tensor = self.stem(images)
        for block in self.blocks:
            maps = block(maps, images_per_clip=images_per_clip, shift_div=self.shift_div, shift_on=self.shift_on)
        return maps


class ShiftedBasicBlock(BasicBlock):  # type: ignore[misc]  # torchvision has no types
    """torchvision's block of two 3x3 convolutions, behind a shift."""

    def forward(self, maps: Tensor, *, images_per_clip: int, shift_div: int, shift_on: ShiftOn) -> Tensor:
        """Map [M,C,h,w] to the block's output."""
        return _shifted_block(self, maps, images_per_clip=images_per_clip, shift_div=shift_div, shift_on=shift_on)


class ShiftedBottleneck(Bottleneck):  # type: ignore[misc]
    """torchvision's block of 1x1, 3x3 and 1x1 convolutions, behind a shift."""

    def forward(self, maps: Tensor, *, images_per_clip: int, shift_div: int, shift_on: ShiftOn) -> Tensor:
        """Map [M,C,h,w] to the block's output."""
        return _shifted_block(self, maps, images_per_clip=images_per_clip, shift_div=shift_div, shift_on=shift_on)


def _shifted_block(
    block: BasicBlock | Bottleneck, maps: Tensor, *, images_per_clip: int, shift_div: int, shift_on: ShiftOn
) -> Tensor:
    shifted = temporal_shift(maps, images_per_clip=images_per_clip, shift_div=shift_div)
    residual = _residual(block, shifted)
    shortcut = shifted if shift_on == "block_input" else maps
    if block.downsample is not None:
        shortcut = block.downsample(shortcut)
    return torch.relu(residual + shortcut)


def temporal_shift(maps: Tensor, *, images_per_clip: int, shift_div: int) -> Tensor:
    """Move channels between the frames of each clip; the number of values stays.

    Args:
        maps: ``[M, C, h, w]``, the frames of a clip one after the other.
        images_per_clip: T; M is a multiple of it.
        shift_div: C // shift_div channels come from the next frame, as many after them from the frame before.

    Returns:
        ``[M, C, h, w]``; zeros in the first kind of channels of a clip's last frame, the second kind of its first.
    """
    clips = maps.unflatten(0, (-1, images_per_clip))
    fold = maps.shape[1] // shift_div
    shifted = torch.zeros_like(clips)
    shifted[:, :-1, :fold] = clips[:, 1:, :fold]
    shifted[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
    shifted[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
    return shifted.flatten(0, 1)


def _residual(block: BasicBlock | Bottleneck, maps: Tensor) -> Tensor:
    """The residual branch of torchvision's block, whose own ``forward`` takes one input for it and the shortcut."""
    maps = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(maps)))))
    if isinstance(block, Bottleneck):
        maps = block.bn3(block.conv3(block.relu(maps)))
    return maps


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """The shortcut of a block that changes the size or the channels."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


def _check(
    blocks_per_stage: Sequence[int], widths: Sequence[int], *, shift_div: int, shift_on: ShiftOn, stem_kernel: int
) -> None:
    """Refuse sizes that don't describe a network."""
    if not widths or len(blocks_per_stage) != len(widths) or min(*blocks_per_stage, *widths) < 1:
        raise ValueError(
            f"blocks_per_stage={list(blocks_per_stage)} and widths={list(widths)} must have equally many entries, "
            "each at least 1; give one number of blocks and one width per stage."
        )
    if shift_div < 2 or min(widths) < shift_div:
        raise ValueError(
            f"shift_div={shift_div} must be at least 2, as channels move both ways, and at most the least of "
            f"widths={list(widths)}, or none would move; take 8, or wider stages."
        )
    if shift_on not in get_args(ShiftOn):
        raise ValueError(f"shift_on={shift_on!r} must be one of {', '.join(get_args(ShiftOn))}; take one of these.")
    if stem_kernel < 1 or stem_kernel % 2 == 0:
        raise ValueError(f"stem_kernel={stem_kernel} must be odd, as an even one shifts the map; for example 7.")
