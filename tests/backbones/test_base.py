"""The pooling and the refusals that all backbones share."""

import pytest
import torch
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.utils.errors import InputError


class Strided(Backbone):
    """Keeps every second frame, row and column of a clip of one channel; wants 4 frames of 6 pixels."""

    feature_dim = 1
    in_channels = 1
    min_frames = 4
    min_size = 6

    def feature_map(self, clips: Tensor) -> Tensor:
        self.check_clips(clips)
        return clips[:, :, ::2, ::2, ::2]


def test_forward_is_the_mean_of_the_map_over_time_and_space() -> None:
    clips = torch.arange(2 * 4 * 6 * 8, dtype=torch.float32).reshape(2, 1, 4, 6, 8)
    # The mean of t*48 + h*8 + w over t in {0,2}, h in {0,2,4}, w in {0,2,4,6} is 48 + 16 + 3; a video adds 192.
    assert Strided()(clips).tolist() == [[67.0], [259.0]]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 3, 1, 4, 6, 6), ["[2, 3, 1, 4, 6, 6]", "5 dimensions", "flatten"]),
        ((2, 3, 4, 6, 6), ["3 channels", "the 1 that Strided", "in_channels=3"]),
        ((2, 1, 3, 6, 6), ["num_frames=3", "at least 4", "longer clips"]),
        ((2, 1, 4, 6, 5), ["6x5 pixels", "at least 6x6", "larger crop"]),
        ((2, 1, 4, 5, 6), ["5x6 pixels", "at least 6x6", "larger crop"]),
    ],
)
def test_clips_that_do_not_fit_are_refused_with_value_rule_and_way_out(
    shape: tuple[int, ...], words: list[str]
) -> None:
    with pytest.raises(InputError) as refusal:
        Strided()(torch.zeros(shape))
    assert [word for word in words if word not in str(refusal.value)] == []


def test_the_smallest_allowed_clip_passes() -> None:
    assert Strided()(torch.ones(1, 1, 4, 6, 6)).tolist() == [[1.0]]


def test_a_backbone_without_a_feature_map_cannot_be_built() -> None:
    with pytest.raises(TypeError, match="feature_map"):
        Backbone()  # type: ignore[abstract]
