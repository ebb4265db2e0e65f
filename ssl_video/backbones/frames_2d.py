"""How a 2D network is a backbone: frame by frame, or on one image that encodes the clip."""

from abc import abstractmethod
from typing import Literal, get_args

from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.modules.clip_encoders import dynamic_image, stack_of_differences, sum_of_differences
from ssl_video.utils.errors import InputError

Encoding = Literal["per_frame", "sum_of_differences", "dynamic_image", "stack_of_differences"]


class Frames2D(Backbone):
    """A network on images. A subclass gives `image_map`; what is done with time is here, and the same for all.

    With the encoding ``per_frame`` the network sees every frame, and a clip's features are the mean of its frames'.
    With the others, those of O3N (`modules/clip_encoders.py`), it sees one image per clip of exactly ``num_frames``.

    Attributes:
        encoding: what the network sees of a clip.
        num_frames: frames of a clip; None where any number will do.
        image_channels: C', channels of the network's first convolution; those of a frame, and W - 1 times as many
            with ``stack_of_differences``.
    """

    def __init__(
        self, *, encoding: Encoding = "per_frame", num_frames: int | None = None, in_channels: int = 3
    ) -> None:
        """Set what the network sees.

        Args:
            encoding: ``per_frame``, ``sum_of_differences``, ``dynamic_image`` or ``stack_of_differences``.
            num_frames: W, frames of an encoded clip; None with ``per_frame``, which takes clips of any length.
            in_channels: C, channels of a frame.

        Raises:
            ValueError: another encoding, or a number of frames that doesn't go with it.
        """
        super().__init__()
        if encoding not in get_args(Encoding):
            raise ValueError(
                f"encoding={encoding!r} must be one of {', '.join(get_args(Encoding))}; take one of these."
            )
        if encoding == "per_frame" and num_frames is not None:
            raise ValueError(
                f"num_frames={num_frames} must be null with encoding='per_frame', which takes clips of any length; "
                "leave it out."
            )
        if encoding != "per_frame" and (num_frames is None or num_frames < 2):
            raise ValueError(
                f"num_frames={num_frames} must be at least 2 with encoding={encoding!r}: one image stands for so many "
                "frames; give the clips' number of frames."
            )
        self.encoding = encoding
        self.num_frames = num_frames
        self.min_frames = num_frames or 1
        self.in_channels = in_channels
        self.image_channels = in_channels * (self.min_frames - 1 if encoding == "stack_of_differences" else 1)

    @abstractmethod
    def image_map(self, images: Tensor, *, images_per_clip: int) -> Tensor:
        """Map images [M,C',H,W] to [M,D,h,w].

        Args:
            images: M = N x images_per_clip; those of a clip stand together, in their order.
            images_per_clip: T with ``per_frame``, else 1; only a network that looks at several frames needs it.
        """

    def feature_map(self, clips: Tensor) -> Tensor:
        """Map clips [N,C,T,H,W] to [N,D,t,h,w]; t = T with ``per_frame``, else 1."""
        self.check_clips(clips)
        images = self.encode(clips)
        maps = self.image_map(images.flatten(0, 1), images_per_clip=images.shape[1])
        by_clip: Tensor = maps.unflatten(0, images.shape[:2])
        return by_clip.transpose(1, 2)

    def frame_features(self, clips: Tensor) -> Tensor:
        """Map clips [N,C,T,H,W] to the features of each frame [N,T,D]; [N,1,D] where one image stands for the clip."""
        return self.feature_map(clips).mean(dim=(3, 4)).transpose(1, 2)

    def encode(self, clips: Tensor) -> Tensor:
        """Map clips [N,C,T,H,W] to the images that the network sees, [N,t,C',H,W]."""
        if self.encoding == "per_frame":
            return clips.transpose(1, 2)
        encoders = {
            "sum_of_differences": sum_of_differences,
            "dynamic_image": dynamic_image,
            "stack_of_differences": stack_of_differences,
        }
        return encoders[self.encoding](clips).unsqueeze(1)

    def check_clips(self, clips: Tensor) -> None:
        """Refuse clips that this backbone cannot take, also of another length than its encoding is made for.

        Raises:
            InputError: see `Backbone.check_clips`.
        """
        if clips.ndim == 5 and self.num_frames is not None and clips.shape[2] != self.num_frames:
            raise InputError(
                f"num_frames={clips.shape[2]} must be the {self.num_frames} that {type(self).__name__} encodes as one "
                f"image; take clips of {self.num_frames} frames (sampler.num_frames={self.num_frames}), or set "
                f"backbone.num_frames={clips.shape[2]}."
            )
        super().check_clips(clips)
