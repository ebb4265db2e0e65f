import numpy as np
import pytest
import torch

from ssl_video.data.transforms.base import (
    as_clips,
    change_,
    channel_tensor,
    channels_first,
    mirror_,
    normalized,
    resize_argument,
    scaled_size,
    to_unit_range,
)


@pytest.mark.parametrize(
    "clips", [torch.zeros(1, 2, 8, 8, 3), torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 2, 3, 8, 8).byte()]
)
def test_other_layouts_are_refused(clips: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[V, T, H, W, 3\] uint8"):
        channels_first(clips)


def test_unit_range_divides_by_255() -> None:
    clips = torch.randint(256, (2, 4, 5, 6, 3), dtype=torch.uint8).permute(0, 4, 1, 2, 3)
    result = to_unit_range(clips)
    assert result.shape == (2, 3, 4, 5, 6)
    assert result.is_contiguous()
    assert torch.equal(result, clips.float() / 255)


def test_sizes_after_a_resize() -> None:
    assert scaled_size(240, 320, resize=120) == (120, 160)
    assert scaled_size(320, 240, resize=120) == (160, 120)
    assert scaled_size(240, 320, resize=(128, 171)) == (128, 171)


def test_some_clips_are_mirrored_and_the_others_left() -> None:
    clips = torch.rand(5, 3, 2, 4, 6)
    for chosen in ([], [0], [1, 2, 3], [0, 2, 4], [0, 1, 2, 3, 4]):
        flags = torch.tensor([place in chosen for place in range(5)])
        expected = torch.stack([clip.flip(-1) if flag else clip for clip, flag in zip(clips, flags, strict=True)])
        changed = clips.clone()
        assert mirror_(changed, flags) is changed
        assert torch.equal(changed, expected), chosen


def test_what_is_worked_on_in_place_or_anew_comes_back_to_its_place() -> None:
    for places in ([1], [1, 2], [0, 3]):
        for work in (lambda own: own.add_(10), lambda own: own + 10):
            clips = torch.arange(4.0)[:, None]
            change_(clips, places, work)
            assert clips.flatten().tolist() == [place + 10 * (place in places) for place in range(4)]


def test_normalising_scales_mirrors_and_leaves_the_pixels_as_they_came() -> None:
    clips = torch.randint(256, (2, 3, 4, 5, 6), dtype=torch.uint8)
    before = clips.clone()
    mean, std = channel_tensor("mean", [0.1, 0.2, 0.3]), channel_tensor("std", [0.5, 0.25, 2.0])
    result = normalized(clips, mirrored=torch.tensor([False, True]), mean=mean, std=std)
    assert result.is_contiguous()
    expected = (clips.double() / 255 - mean) / std
    torch.testing.assert_close(result, torch.stack([expected[0], expected[1].flip(-1)]).float())
    assert torch.equal(clips, before)


def test_readers_frames_stay_channels_last() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 6, 3)).astype(np.uint8)
    clips = as_clips(list(frames))
    assert clips.shape == (2, 3, 4, 5, 6)
    assert clips.permute(0, 2, 3, 4, 1).is_contiguous()
    assert np.array_equal(clips.permute(0, 2, 3, 4, 1).numpy(), frames)


def test_resize_takes_a_list_from_yaml() -> None:
    assert resize_argument([128, 171]) == (128, 171)
    assert resize_argument(64) == 64
    with pytest.raises(ValueError, match="two numbers"):
        resize_argument([1, 2, 3])
    with pytest.raises(ValueError, match="at least 1 pixel"):
        resize_argument(0)
