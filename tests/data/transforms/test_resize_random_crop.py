from typing import Any

import pytest
import torch

from ssl_video.data.readers.base import FramePart
from ssl_video.data.transforms.resize_random_crop import ResizeRandomCrop


def coordinates(height: int = 128, width: int = 171) -> torch.Tensor:
    """Return a frame `[H, W, 3]` whose red is the column and whose green is the row."""
    frame = torch.zeros(height, width, 3, dtype=torch.uint8)
    frame[..., 0] = torch.arange(width)
    frame[..., 1] = torch.arange(height)[:, None]
    return frame


def test_paper_sizes_give_unit_range_without_normalisation() -> None:
    clips = ResizeRandomCrop()(torch.full((3, 2, 240, 320, 3), 255, dtype=torch.uint8))
    assert clips.shape == (3, 3, 2, 112, 112)
    assert clips.dtype == torch.float32
    assert torch.equal(clips, torch.ones_like(clips))


def test_crop_is_drawn_per_clip_constant_in_it_and_reaches_every_place() -> None:
    transform = ResizeRandomCrop()
    corners = set()
    for _ in range(100):
        clips = transform(coordinates().expand(3, 4, -1, -1, -1))
        assert torch.equal(clips, clips[:, :, :1].expand_as(clips))
        corners.update((round(float(clip[1, 0, 0, 0] * 255)), round(float(clip[0, 0, 0, 0] * 255))) for clip in clips)
    rows, columns = zip(*corners, strict=True)
    assert set(rows) == set(range(128 - 112 + 1))
    assert (min(columns), max(columns)) == (0, 171 - 112)
    assert len(corners) > 150  # one crop per sample would give at most 100


def test_flip_is_one_draw_for_all_clips() -> None:
    transform = ResizeRandomCrop(flip_probability=0.5)
    seen = set()
    for _ in range(30):
        clips = transform(coordinates().expand(3, 2, -1, -1, -1))
        mirrored = {bool(clip[0, 0, 0, 0] > clip[0, 0, 0, -1]) for clip in clips}
        assert len(mirrored) == 1
        seen |= mirrored
    assert seen == {True, False}


def test_same_seed_same_crops() -> None:
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(ResizeRandomCrop()(coordinates().expand(3, 1, -1, -1, -1)))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_reader_scales_the_frame_and_cuts_the_square() -> None:
    for resize, scaled in (((128, 171), (128, 171)), (128, (128, 256))):
        for part in ResizeRandomCrop(resize=resize).draw([(256, 512)] * 30, num_frames=2).parts:
            assert isinstance(part, FramePart) and part.window is not None
            top, left, height, width = part.window
            assert 0 <= top <= scaled[0] - 112 and 0 <= left <= scaled[1] - 112
            assert (part.box, part.size, height, width) == (None, scaled, 112, 112)


@pytest.mark.parametrize("settings", [{"crop": 129}, {"crop": 0}, {"resize": [128]}, {"flip_probability": 2.0}])
def test_faulty_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        ResizeRandomCrop(**settings)
