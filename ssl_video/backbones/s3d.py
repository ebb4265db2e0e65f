"""S3D and S3D-G in any width: separable 3D inception, with or without feature gating."""

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.video.s3d import Conv3dNormActivation, SepInceptionBlock3D, TemporalSeparableConv

from ssl_video.backbones.base import Backbone

# Input and branches of an inception block: 1x1x1; 1x1x1, 3x3x3; 1x1x1, 3x3x3; 1x1x1 behind the pooling.
Channels = tuple[int, int, int, int, int, int, int]
STAGES: tuple[tuple[Channels, ...], ...] = (
    ((192, 64, 96, 128, 16, 32, 32), (256, 128, 128, 192, 32, 96, 64)),
    (
        (480, 192, 96, 208, 16, 48, 64),
        (512, 160, 112, 224, 24, 64, 64),
        (512, 128, 128, 256, 24, 64, 64),
        (512, 112, 144, 288, 32, 64, 64),
        (528, 256, 160, 320, 32, 128, 128),
    ),
    ((832, 256, 160, 320, 32, 128, 128), (832, 384, 192, 384, 48, 128, 128)),
)


class S3D(Backbone):
    """S3D, and S3D-G with gating (Xie et al., ECCV 2018), of torchvision's blocks and with its names.

    Gating follows the paper: one gate after each convolution in time (20 of them). Released codes differ: CoCLR's
    gates the outputs of all four branches of a block and none in the stem, that of HowTo100M (MIL-NCE) all four
    branches and the second separable convolution; weights of theirs don't fit. Without gating it is torchvision's S3D:
    7,910,048 parameters, D = 1024. Needs 5 frames of 17 pixels or more.
    """

    # The last pooling isn't padded: it needs 2 frames of 2 pixels, after two halvings of time, four of space.
    min_frames = 5
    min_size = 17

    def __init__(
        self, *, gating: bool = True, width_multiplier: float = 1.0, batch_norm_momentum: float = 0.001
    ) -> None:
        """Build the network.

        Args:
            gating: whether a gate follows each convolution in time (S3D-G).
            width_multiplier: factor on all channels, for small forms.
            batch_norm_momentum: weight of the newest batch in the running statistics; the original's 0.001 (TensorFlow
                0.999) takes thousands of steps to forget the start.

        Raises:
            ValueError: a width that is not above 0.
        """
        super().__init__()
        if width_multiplier <= 0:
            raise ValueError(f"width_multiplier={width_multiplier} must be above 0; 1 is the paper's width.")
        norm = partial(nn.BatchNorm3d, eps=0.001, momentum=batch_norm_momentum)

        def scaled(channels: int) -> int:
            return max(1, round(channels * width_multiplier))

        first, second = scaled(64), scaled(192)
        layers: list[nn.Module] = [
            TemporalSeparableConv(3, first, 7, 2, 3, norm),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            Conv3dNormActivation(first, first, kernel_size=1, stride=1, norm_layer=norm),
            TemporalSeparableConv(first, second, 3, 1, 1, norm),
        ]
        poolings = (
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d((3, 3, 3), stride=(2, 2, 2), padding=(1, 1, 1)),
            nn.MaxPool3d((2, 2, 2), stride=(2, 2, 2)),
        )
        previous = second
        for pooling, blocks in zip(poolings, STAGES, strict=True):
            layers.append(pooling)
            for _, *branches in blocks:
                branches = [scaled(channels) for channels in branches]
                layers.append(SepInceptionBlock3D(previous, *branches, norm_layer=norm))
                previous = branches[0] + branches[2] + branches[4] + branches[5]
        self.layers = nn.Sequential(*layers)
        self.feature_dim = previous
        if gating:
            _add_gates(self.layers)

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,3,T,H,W] to [N,D,t,h,w]; t about T/8, h and w about H/32 and W/32."""
        self.check_clips(clips)
        features: Tensor = self.layers(clips)
        return features


class FeatureGate(nn.Module):
    """Scales each channel by what the clip's mean features say: sigmoid(W mean(x) + b) * x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N,C,t,h,w] to the same shape."""
        gates = torch.sigmoid(self.linear(features.mean(dim=(2, 3, 4))))
        return features * gates[:, :, None, None, None]


def _add_gates(layers: nn.Module) -> None:
    """A gate behind each separable convolution, whose last part is the one in time."""
    for module in list(layers.modules()):
        if isinstance(module, TemporalSeparableConv):
            in_time = module[1][0]
            assert isinstance(in_time, nn.Conv3d)
            module.append(FeatureGate(in_time.out_channels))
