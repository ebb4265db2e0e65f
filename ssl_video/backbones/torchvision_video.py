"""The four 3D networks of torchvision, without their classifier and untrained."""

import re
from typing import Literal

from torch import Tensor, nn
from torchvision.models import video

from ssl_video.backbones.base import Backbone

Name = Literal["r3d_18", "r2plus1d_18", "mc3_18", "s3d"]


class TorchvisionVideo(Backbone):
    """R3D-18, R(2+1)D-18, MC3-18 (Tran et al., CVPR 2018) or S3D (Xie et al., ECCV 2018) as built by torchvision.

    The residual ones have D = 512 and halve height and width four times; R3D-18 and R(2+1)D-18 halve time three
    times, MC3-18 never. S3D has D = 1024, halves time three times and space five times, and needs 5 frames of 17
    pixels or more. Weights are torchvision's random initialisation: nothing is downloaded.
    """

    def __init__(self, *, name: Name) -> None:
        """Build the network.

        Args:
            name: torchvision's name of it.

        Raises:
            ValueError: another name.
        """
        super().__init__()
        if name == "s3d":
            self.feature_dim = 1024
            # The last pooling isn't padded: it needs 2 frames of 2 pixels, after two halvings of time, four of space.
            self.min_frames, self.min_size = 5, 17
            self.layers = video.s3d(weights=None).features
        elif name in ("r3d_18", "r2plus1d_18", "mc3_18"):
            network = getattr(video, name)(weights=None)
            self.feature_dim = network.fc.in_features
            self.layers = nn.Sequential(network.stem, network.layer1, network.layer2, network.layer3, network.layer4)
        else:
            raise ValueError(f"name={name!r} must be one of r3d_18, r2plus1d_18, mc3_18, s3d; take one of these.")
        self.name = name

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,3,T,H,W] to [N,D,t,h,w]."""
        self.check_clips(clips)
        features: Tensor = self.layers(clips)
        return features

    def other_names(self, name: str) -> tuple[str, ...]:
        """Names of torchvision's residual ones, and those of its 2D ResNet-18; S3D's differ by the prefix only."""
        if self.name == "s3d":
            return ()
        in_video = re.sub(r"^layers\.(\d)\.", r"layer\1.", name).replace("layer0.", "stem.")
        in_images = re.sub(r"^stem\.0\.", "conv1.", re.sub(r"^stem\.1\.", "bn1.", in_video))
        in_images = re.sub(r"\.conv(\d)\.0\.", r".conv\1.", re.sub(r"\.conv(\d)\.1\.", r".bn\1.", in_images))
        return in_video, in_images
