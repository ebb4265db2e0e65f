from collections import Counter

import numpy as np
import pytest
from scipy import stats

from ssl_video.data.samplers.consecutive_clips import ConsecutiveClips
from ssl_video.utils.errors import InputError
from support.segments import segment

PAPER = ConsecutiveClips(num_views=3, num_frames=16, frame_stride=1, gap_frames=8)


def test_paper_tuple_spans_64_frames_with_gaps_of_8() -> None:
    assert PAPER.min_frames == 64
    indices = PAPER(segment(64), np.random.default_rng(0)).indices
    assert indices[0, 0] == 0
    assert indices[-1, -1] == 63
    assert (np.diff(indices, axis=1) == 1).all()
    assert (indices[1:, 0] - indices[:-1, -1] - 1 == 8).all()


def test_start_is_uniform_and_the_last_one_is_reached() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(int(PAPER(segment(68), rng).indices[0, 0]) for _ in range(2000))
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_clips_come_in_time_order_with_a_stride() -> None:
    sampler = ConsecutiveClips(num_views=2, num_frames=3, frame_stride=2, gap_frames=1)
    assert sampler.min_frames == 11
    assert sampler(segment(11), np.random.default_rng(0)).indices.tolist() == [[0, 2, 4], [6, 8, 10]]


def test_too_short_videos_are_refused_by_default() -> None:
    with pytest.raises(
        InputError, match=r"63 frames, but the sampler needs 64; .* lower sampler.num_frames"
    ) as refusal:
        PAPER(segment(63), np.random.default_rng(0))
    assert "end_policy" not in str(refusal.value)  # held or repeated frames would give the order away


def test_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="gap_frames=-1"):
        ConsecutiveClips(gap_frames=-1)
