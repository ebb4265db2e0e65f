"""What pixels alone answer on made videos: nearly all where there is motion, nothing where there is none."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_video.data.solvable_videos import render
from ssl_video.pretext.odd_one_out import draw_odd_ones
from ssl_video.pretext.permutations import all_permutations, draw_orders, draw_permutations, order_classes, present
from ssl_video.pretext.pixel_rules import matching_boundaries, middle_is_between, most_change, shortest_path
from ssl_video.pretext.tuples import draw_tuples

pytestmark = pytest.mark.slow


TUPLES = 600


def videos(generator: str, times) -> Tensor:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    return torch.from_numpy(np.stack([render(generator, times(rng), rng=rng, size=24) for _ in range(TUPLES)]))


def within_chance(accuracy: float, chance: float, number: int = TUPLES) -> bool:
    return abs(accuracy - chance) <= 3 * math.sqrt(chance * (1 - chance) / number)


def five_frames(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 31, endpoint=True) + np.sort(rng.choice(33, 5, replace=False))[None]


def four_frames(rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(64, 4, replace=False))[None]


def six_clips(rng: np.random.Generator) -> np.ndarray:
    """No two share a frame."""
    return rng.permutation(10)[:6, None] * 6 + np.arange(6)


def three_clips(rng: np.random.Generator) -> np.ndarray:
    return 24 * np.arange(3)[:, None] + np.arange(16)


def verification(generator: str) -> float:
    """Balanced accuracy."""
    places, labels = draw_tuples(TUPLES)
    right = middle_is_between(videos(generator, five_frames)[:, 0][torch.arange(TUPLES)[:, None], places]) == labels
    return float(torch.stack([right[labels == kind].float().mean() for kind in (0, 1)]).mean())


def sorting(generator: str, merge: str) -> float:
    frames = videos(generator, four_frames)[:, 0]
    classes = order_classes(merge)
    orders, labels = draw_orders(TUPLES, classes)
    return (shortest_path(present(frames, orders), classes) == labels).float().mean().item()


def odd_one_out(generator: str) -> float:
    clips = videos(generator, six_clips)
    orders, odd = draw_odd_ones(TUPLES, num_branches=6, num_frames=6)
    presented = clips[torch.arange(TUPLES)[:, None, None], torch.arange(6)[:, None], orders]
    return (most_change(presented) == odd).float().mean().item()


def clip_order(generator: str) -> float:
    clips = videos(generator, three_clips)
    permutations, labels = draw_permutations(TUPLES, 3)
    return (matching_boundaries(present(clips, permutations)) == labels).float().mean().item()


@pytest.mark.parametrize("generator", ["A", "B"])
def test_motion_is_ordered_by_pixels_alone(generator):
    assert verification(generator) == 1.0
    assert sorting(generator, "time") == 1.0
    assert odd_one_out(generator) >= 0.99  # 1 in 719 odd clips is the exact reversal, which changes no more than others
    assert clip_order(generator) == 1.0


@pytest.mark.parametrize("generator", ["A", "B"])
def test_pixel_distances_do_not_see_the_direction_of_time(generator):
    assert within_chance(sorting(generator, "position"), 2 / 3)
    assert within_chance(sorting(generator, "none"), 1 / 2)


@pytest.mark.parametrize("generator", ["C", "D"])
def test_nothing_is_ordered_where_there_is_no_order(generator):
    assert within_chance(verification(generator), 1 / 2, TUPLES // 2)  # few tuples are right, so it spreads more
    assert within_chance(sorting(generator, "position"), 1 / 12)
    assert within_chance(sorting(generator, "time"), 1 / 12)
    assert within_chance(odd_one_out(generator), 1 / 6)
    assert within_chance(clip_order(generator), 1 / 6)


def ramp(*shape: int) -> Tensor:
    """One video whose frames' pixels are their times: ``[1, *shape, 2]``."""
    return torch.arange(math.prod(shape)).reshape(1, *shape, 1).expand(*[-1] * (len(shape) + 1), 2)


def test_rules_by_hand_on_every_order_of_a_ramp():
    assert middle_is_between(ramp(5)[:, [[1, 2, 3], [1, 0, 3], [3, 4, 1], [3, 2, 1]]][0]).tolist() == [1, 0, 0, 1]
    permutations = all_permutations(3)
    clips = (10 * torch.arange(3)[:, None] + torch.arange(4))[permutations]  # [6,3,4]: clips of 4 frames, 6 apart
    assert matching_boundaries(clips.unsqueeze(3)).tolist() == list(range(6))
    classes = order_classes("time")
    assert shortest_path(classes[:, 1].unsqueeze(2), classes).tolist() == list(range(12))
    branches = ramp(3, 4).clone()
    branches[0, 1] = branches[0, 1, [0, 2, 1, 3]]
    assert most_change(branches).tolist() == [1]
