"""What every backbone gives: clips [N,C,T,H,W] in, features [N,D] out, and the map [N,D,t,h,w] before pooling."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ssl_video.utils.errors import InputError


class Backbone(nn.Module, ABC):
    """A video network without a classifier.

    Attributes:
        feature_dim: D, channels of the feature map; known without a forward pass.
        in_channels: C, channels of a clip.
        min_frames: fewest frames T for which the feature map isn't empty.
        min_size: fewest pixels in height and in width for which it isn't empty.
        traces_any_size: whether a graph traced with clips of one length and size (`ssl-video export`) can serve others.
    """

    feature_dim: int
    in_channels: int = 3
    min_frames: int = 1
    min_size: int = 1
    traces_any_size: bool = True

    @abstractmethod
    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,C,T,H,W] to [N,D,t,h,w], the last map before pooling."""

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips [N,C,T,H,W] to features [N,D]: the feature map's mean over time and space."""
        return self.feature_map(clips).mean(dim=(2, 3, 4))

    def other_names(self, name: str) -> tuple[str, ...]:
        """What published weights call a tensor that `state_dict` calls `name`; each place of the tuple is one naming.

        Names that differ only by a prefix of all tensors need none.
        """
        return ()

    def check_clips(self, clips: Tensor) -> None:
        """Refuse clips that this backbone cannot take.

        Raises:
            InputError: not five dimensions, other channels, or a clip too short or too small for the strides.
        """
        name = type(self).__name__
        if clips.ndim != 5:
            raise InputError(
                f"clips of shape {list(clips.shape)} must have the 5 dimensions [N,C,T,H,W]; "
                "flatten videos and views first: clips.flatten(0, 1)."
            )
        channels, frames, height, width = clips.shape[1:]
        if channels != self.in_channels:
            raise InputError(
                f"clips with {channels} channels must have the {self.in_channels} that {name} was built for; "
                f"build it with in_channels={channels} where it has that argument, or give the clips in [N,C,T,H,W]."
            )
        if frames < self.min_frames:
            raise InputError(
                f"num_frames={frames} must be at least {self.min_frames} for {name}, whose strides in time leave "
                "nothing of a shorter clip; take longer clips or another backbone."
            )
        if min(height, width) < self.min_size:
            raise InputError(
                f"clips of {height}x{width} pixels must be at least {self.min_size}x{self.min_size} for {name}, whose "
                "strides leave nothing of a smaller one; take a larger crop or another backbone."
            )
