import pytest
import torch

from ssl_video.data.transforms.base import channels_first, resize_argument, scaled_size, smaller_size, to_unit_range


@pytest.mark.parametrize(
    "clips", [torch.zeros(1, 2, 8, 8, 3), torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 2, 3, 8, 8).byte()]
)
def test_other_layouts_are_refused(clips: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[V, T, H, W, 3\] uint8"):
        channels_first(clips)


def test_unit_range_moves_the_channels_and_divides_by_255() -> None:
    clips = torch.randint(256, (2, 4, 5, 6, 3), dtype=torch.uint8)
    result = to_unit_range(channels_first(clips))
    assert result.shape == (2, 3, 4, 5, 6)
    assert result.is_contiguous()
    assert torch.equal(result, clips.permute(0, 4, 1, 2, 3).float() / 255)


def test_sizes_after_a_resize() -> None:
    assert scaled_size(240, 320, resize=120) == (120, 160)
    assert scaled_size(320, 240, resize=120) == (160, 120)
    assert scaled_size(240, 320, resize=(128, 171)) == (128, 171)
    assert smaller_size(240, 320, resize=120) == (120, 160)
    assert smaller_size(64, 64, resize=120) is None  # enlarging early saves nothing


def test_resize_takes_a_list_from_yaml() -> None:
    assert resize_argument([128, 171]) == (128, 171)
    assert resize_argument(64) == 64
    with pytest.raises(ValueError, match="two numbers"):
        resize_argument([1, 2, 3])
    with pytest.raises(ValueError, match="at least 1 pixel"):
        resize_argument(0)
