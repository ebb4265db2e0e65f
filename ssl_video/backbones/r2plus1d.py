"""R(2+1)D, the factorised 3D network of clip order prediction, in any size."""

from torch import nn

from ssl_video.backbones.r3d import R3D, Triple

# What the official code calls the layers of a factorised convolution.
_FACTORS = {"0": "spatial_conv", "1": "bn", "3": "temporal_conv"}


class R2Plus1D(R3D):
    """R(2+1)D as in VCOP (Xu et al., CVPR 2019; official code `models/r21d.py`): R3D with each convolution factorised.

    A convolution in space, batch norm, ReLU, then one in time, with as many channels between as keep the number of
    weights (`middle_channels`; 83 in the stem). Unlike in Tran et al. (CVPR 2018), the 1x1x1 shortcuts are factorised
    too. With the default sizes it has 14,365,303 parameters; arguments and map sizes are those of R3D.
    """

    @staticmethod
    def convolution(in_channels: int, out_channels: int, *, kernel: Triple, stride: Triple) -> nn.Module:
        """One convolution in space, then one in time, with batch norm and ReLU between."""
        middle = middle_channels(in_channels, out_channels, kernel=kernel)
        time, height, width = kernel
        in_space = nn.Conv3d(
            in_channels,
            middle,
            (1, height, width),
            stride=(1, stride[1], stride[2]),
            padding=(0, height // 2, width // 2),
            bias=False,
        )
        in_time = nn.Conv3d(
            middle, out_channels, (time, 1, 1), stride=(stride[0], 1, 1), padding=(time // 2, 0, 0), bias=False
        )
        return nn.Sequential(in_space, nn.BatchNorm3d(middle), nn.ReLU(inplace=True), in_time)

    @staticmethod
    def convolution_name(name: str) -> str:
        """The official code's name of what is `name` within `convolution`."""
        place, _, rest = name.partition(".")
        return f"{_FACTORS[place]}.{rest}"


def middle_channels(in_channels: int, out_channels: int, *, kernel: Triple) -> int:
    """Channels between the two halves of a factorised convolution: the most that don't add weights (at least 1).

    floor(kt kh kw Cin Cout / (kh kw Cin + kt Cout)), Tran et al., CVPR 2018, section 3.5.
    """
    time, height, width = kernel
    full = time * height * width * in_channels * out_channels
    return max(1, full // (height * width * in_channels + time * out_channels))
