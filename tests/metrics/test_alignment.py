from itertools import combinations

import numpy as np
import pytest
import torch

from ssl_video.metrics.alignment import clip_alignment


def oracle(clips: np.ndarray) -> list[float]:
    """Loop over the pairs of each video."""
    unit = clips / np.linalg.norm(clips, axis=2, keepdims=True)
    return [float(np.mean([((a - b) ** 2).sum() for a, b in combinations(video, 2)])) for video in unit]


@pytest.mark.parametrize("num_clips", [2, 3, 7])
def test_equals_the_definition(num_clips: int) -> None:
    clips = torch.randn(6, num_clips, 5)
    np.testing.assert_allclose(clip_alignment(clips).numpy(), oracle(clips.numpy()), rtol=1e-5)


def test_closed_forms() -> None:
    x, y = torch.eye(2)
    clips = torch.stack([torch.stack([x, 3 * x]), torch.stack([x, -x]), torch.stack([x, y])])
    torch.testing.assert_close(clip_alignment(clips), torch.tensor([0.0, 4.0, 2.0], dtype=torch.float64))


def test_equal_clips_are_never_below_zero() -> None:
    clips = torch.randn(50, 1, 300).expand(50, 4, 300)
    assert 0 <= float(clip_alignment(clips).min()) <= float(clip_alignment(clips).max()) < 1e-12


@pytest.mark.parametrize("shape", [(3, 1, 4), (3, 4)])
def test_fewer_than_two_clips_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 2 clips"):
        clip_alignment(torch.ones(shape))
