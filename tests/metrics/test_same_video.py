"""Clips are known again in whatever order a method encoded them."""

import torch
from torch import Tensor

from ssl_video.metrics.same_video import group_by_video

CLIPS = torch.randn(4, 3, 2, 5, 6, 6, generator=torch.Generator().manual_seed(0))
EXPECTED = CLIPS.flatten(2).mean(dim=2)  # [4, 3], one number of each clip


def features(seen: Tensor) -> Tensor:
    return seen.flatten(1).mean(dim=1, keepdim=True)


def test_orders_of_clips() -> None:
    by_view = CLIPS.transpose(0, 1).flatten(0, 1)
    by_video = CLIPS.flatten(0, 1)
    shuffled = by_video[torch.randperm(12, generator=torch.Generator().manual_seed(1))]
    for seen in (by_view, by_video, shuffled, torch.cat(by_view.tensor_split(5))):
        torch.testing.assert_close(group_by_video(seen, features(seen), CLIPS)[..., 0], EXPECTED)


def test_videos_with_a_clip_that_was_not_seen_are_left_out() -> None:
    seen = CLIPS.flatten(0, 1)[1:]  # without the first clip of the first video
    torch.testing.assert_close(group_by_video(seen, features(seen), CLIPS)[..., 0], EXPECTED[1:])
    only_first = CLIPS[:, 0]
    assert group_by_video(only_first, features(only_first), CLIPS).shape == (0, 3, 1)


def test_clips_that_were_changed_are_not_known() -> None:
    backwards = CLIPS.flatten(0, 1).flip(2)
    assert len(group_by_video(backwards, features(backwards), CLIPS)) == 0
    frames = CLIPS.flatten(0, 1)[:, :, :1]
    assert group_by_video(frames, features(frames), CLIPS).shape == (0, 3, 1)
