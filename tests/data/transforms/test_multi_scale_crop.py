from collections import Counter
from typing import Any

import pytest
import torch

from ssl_video.data.readers.base import FramePart
from ssl_video.data.transforms.multi_scale_crop import PLACES, MultiScaleCrop

PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SIDE = 200  # short side of the test frame, 240 wide


def coordinates() -> torch.Tensor:
    """A frame `[200, 240, 3]` whose red is the column and whose green is the row."""
    frame = torch.zeros(SIDE, 240, 3, dtype=torch.uint8)
    frame[..., 0] = torch.arange(240)
    frame[..., 1] = torch.arange(SIDE)[:, None]
    return frame


def boxes(transform: MultiScaleCrop, draws: int) -> list[tuple[float, float, float, float]]:
    """Top, left, height and width of crops, read from the colours at their rims."""
    found = []
    for _ in range(draws):
        clip = transform(coordinates().expand(1, 2, -1, -1, -1))[0] * 255
        assert torch.equal(clip[:, 0], clip[:, 1])
        columns, rows = clip[0, 0, 50], clip[1, 0, :, 50]
        step_x, step_y = (columns[-11] - columns[10]) / 79, (rows[-11] - rows[10]) / 79
        left, top = columns[10] - 10.5 * step_x, rows[10] - 10.5 * step_y
        found.append((float(top) + 0.5, float(left) + 0.5, 100 * float(step_y), 100 * float(step_x)))
    return found


def test_scales_differ_by_one_place_at_most_and_all_pairs_come() -> None:
    lengths = {200: 0, 175: 1, 150: 2, 132: 3}
    pairs: Counter[tuple[int, int]] = Counter()
    for _, _, height, width in boxes(MultiScaleCrop(size=100, **PLAIN), 600):
        nearest = [min(lengths, key=lambda length, side=side: abs(length - side)) for side in (height, width)]  # type: ignore[misc]
        assert abs(nearest[0] - height) < 2.5 and abs(nearest[1] - width) < 2.5
        pairs[(lengths[nearest[0]], lengths[nearest[1]])] += 1
    assert set(pairs) == {(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    assert min(pairs.values()) > 30  # of 60 expected


def test_thirteen_places() -> None:
    transform = MultiScaleCrop(size=100, scales=[0.5], **PLAIN)
    fourths = Counter((round(top / 25), round(left / 35)) for top, left, _, _ in boxes(transform, 600))
    assert set(fourths) == set(PLACES)
    assert len(PLACES) == 13
    assert min(fourths.values()) > 20  # of 46 expected
    assert {(0, 0), (4, 4), (2, 2), (0, 2), (1, 3)} <= set(PLACES)


def test_clips_of_a_sample_are_drawn_apart() -> None:
    transform = MultiScaleCrop(size=20, **PLAIN)
    clips = transform(coordinates().expand(2, 3, -1, -1, -1))
    assert clips.shape == (2, 3, 3, 20, 20)
    assert not torch.equal(clips[0], clips[1])


def test_normalisation_and_no_flip_by_default() -> None:
    clips = MultiScaleCrop(size=8)(torch.full((1, 2, 30, 40, 3), 255, dtype=torch.uint8))
    torch.testing.assert_close(clips[0, :, 0, 0, 0], torch.tensor([2.2489, 2.4286, 2.64]), atol=1e-4, rtol=0)
    columns = [MultiScaleCrop(size=20, **PLAIN)(coordinates()[None, None])[0, 0, 0, 5] for _ in range(30)]
    assert all(bool((row.diff() > 0).all()) for row in columns)
    flipped = [MultiScaleCrop(size=20, flip_probability=1.0, **PLAIN)(coordinates()[None, None]) for _ in range(5)]
    assert all(bool((clip[0, 0, 0, 5].diff() < 0).all()) for clip in flipped)


def test_tiny_frames() -> None:
    assert MultiScaleCrop(size=8)(torch.zeros(1, 1, 1, 3, 3, dtype=torch.uint8)).shape == (1, 3, 1, 8, 8)


def test_the_reader_is_asked_for_the_crop_alone() -> None:
    for part in MultiScaleCrop(size=20).draw([(SIDE, 240)] * 30, num_frames=2).parts:
        assert isinstance(part, FramePart) and part.box is not None
        top, left, height, width = part.box
        assert 0 <= top <= SIDE - height and 0 <= left <= 240 - width
        assert (part.size, part.window) == ((20, 20), None)


@pytest.mark.parametrize("wrong", [{"scales": []}, {"scales": [1.5]}, {"max_distortion": -1}, {"size": 0}])
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MultiScaleCrop(**wrong)
