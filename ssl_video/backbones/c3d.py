"""C3D with batch norm and without its linear layers, as in clip order prediction."""

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_video.backbones.base import Backbone


class C3D(Backbone):
    """C3D as in VCOP (Xu et al., CVPR 2019; official code `models/c3d.py`).

    Stages of 3x3x3 convolutions (with bias) each followed by batch norm and ReLU; max pooling between stages, by
    (1,2,2) after the first and by 2 after the others. With the default sizes it has 27,661,440 parameters and a clip
    [N,3,16,112,112] gives a feature map [N,512,2,7,7].
    """

    def __init__(
        self,
        *,
        convolutions_per_stage: Sequence[int] = (1, 1, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        in_channels: int = 3,
    ) -> None:
        """Build the network.

        Args:
            convolutions_per_stage: convolutions in each stage.
            widths: channels of each stage, as many as stages; D is the last one.
            in_channels: C, channels of a clip.

        Raises:
            ValueError: sizes that don't describe a network.
        """
        super().__init__()
        if not widths or len(convolutions_per_stage) != len(widths) or min(*convolutions_per_stage, *widths) < 1:
            raise ValueError(
                f"convolutions_per_stage={list(convolutions_per_stage)} and widths={list(widths)} must have equally "
                "many entries, each at least 1; give one number of convolutions and one width per stage."
            )
        self.in_channels = in_channels
        self.feature_dim = widths[-1]
        poolings = len(widths) - 1
        self.min_frames = 2 ** max(0, poolings - 1)
        self.min_size = 2**poolings
        self.convolutions_per_stage = tuple(convolutions_per_stage)
        self.stages = nn.Sequential()
        previous = in_channels
        for stage, (convolutions, width) in enumerate(zip(convolutions_per_stage, widths, strict=True)):
            layers: list[nn.Module] = []
            if stage > 0:
                layers.append(nn.MaxPool3d((1, 2, 2) if stage == 1 else (2, 2, 2)))
            for _ in range(convolutions):
                layers += [nn.Conv3d(previous, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
                previous = width
            self.stages.append(nn.Sequential(*layers))

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,C,T,H,W] to [N,D,t,h,w]; by default t = floor(T/8), h = floor(H/16), w = floor(W/16)."""
        self.check_clips(clips)
        features: Tensor = self.stages(clips)
        return features

    def other_names(self, name: str) -> tuple[str, ...]:
        """The official code's names: conv1, bn1, conv2, bn2, conv3a, bn3a, conv3b, …, behind `base_network.`."""
        _, stage, layer, kind = name.split(".")
        # Each convolution, its norm and a ReLU; all stages but the first begin with a pooling.
        convolution, part = divmod(int(layer) - (int(stage) > 0), 3)
        letter = chr(ord("a") + convolution) if self.convolutions_per_stage[int(stage)] > 1 else ""
        return (f"{('conv', 'bn')[part]}{int(stage) + 1}{letter}.{kind}",)
