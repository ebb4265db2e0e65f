"""One pass over the pixels: frame orders, poolings, and sums that no batch changes."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch, Failure
from ssl_video.evaluation.clips import ClipSpec
from ssl_video.evaluation.extract import (
    FeatureKey,
    Pass,
    extract_features,
    frame_permutation,
    pixels,
    reorder,
)
from ssl_video.utils.errors import InputError

CPU = torch.device("cpu")
NORMAL = ClipSpec(num_clips=2, num_frames=4)


class Frames(Backbone):
    """The feature map is the clip itself; counts its passes."""

    feature_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.maps = 0
        self.threads: set[int] = set()

    def feature_map(self, clips: Tensor) -> Tensor:
        self.maps += 1
        self.threads.add(torch.get_num_threads())
        assert not self.training
        return clips


class OwnPooling(Frames):
    """Takes the first place of the map."""

    def forward(self, clips: Tensor) -> Tensor:
        return self.feature_map(clips)[:, :, 0, 0, 0]


class CountsItsBatch(Frames):
    """What torch does in the last bit, made visible: the features depend on the clips beside."""

    def forward(self, clips: Tensor) -> Tensor:
        return super().forward(clips) + len(clips)


class KnowsItsFrames(Frames):
    """The features are the frame numbers, which stand in the pixels."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips[:, 0, :, 0, 0]


def batch(rows: Sequence[int], views: Sequence[ClipSpec], *, size: int = 4) -> dict[ClipSpec, ClipBatch]:
    """Each video has its own random pixels, whatever the batch."""
    made = {}
    for spec in views:
        shape = (spec.num_views, 3, spec.num_frames or 4, size, size)
        clips = [torch.randn(shape, generator=torch.Generator().manual_seed(row)) for row in rows]
        made[spec] = ClipBatch(
            clips=torch.stack(clips) if clips else torch.empty(0, 0, 0, 0, 0, 0),
            indices=torch.zeros((len(rows), *shape[:1], shape[2]) if clips else (0, 0, 0), dtype=torch.int64),
            labels=torch.zeros(len(rows), dtype=torch.int64),
            rows=torch.tensor(rows, dtype=torch.int64),
            videos=torch.tensor(rows, dtype=torch.int64),
            positions=torch.tensor(rows, dtype=torch.int64),
            failures=() if clips else (Failure(9, "broken"),),
            read_seconds=0.25,
        )
    return made


def extracted(
    backbones: dict[str, Backbone], batches: Iterator[Any] | list[Any], specs: Sequence[ClipSpec], **changes: Any
) -> tuple[dict[FeatureKey, Tensor], Pass]:
    parts: dict[FeatureKey, list[Tensor]] = {(name, spec): [] for name in backbones for spec in specs}
    changes = {"device": CPU} | changes
    done = extract_features(
        backbones,
        batches,
        wanted=list(parts),
        write=lambda key, features: parts[key].append(features),
        **changes,
    )
    return {key: torch.cat(some) for key, some in parts.items()}, done


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_neither_batch_nor_threads_reach_the_backbone(batch_size: int, threads: int) -> None:
    rows = list(range(5))
    batches = [batch(rows[start : start + batch_size], [NORMAL]) for start in range(0, 5, batch_size)]
    backbone = CountsItsBatch()
    features, done = extracted({"net": backbone}, batches, [NORMAL], num_threads=threads)
    clips = batch(rows, [NORMAL])[NORMAL].clips
    expected = clips.mean(dim=(3, 4, 5)) + NORMAL.num_clips
    torch.testing.assert_close(features["net", NORMAL], expected)
    assert done.rows == rows, "in the order asked, whichever thread was first"
    assert backbone.threads == {1}


def test_the_number_of_threads_is_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        extracted({"net": Frames()}, [batch([0], [NORMAL])], [NORMAL], num_threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_failures_and_seconds_are_handed_on() -> None:
    _, done = extracted({"net": Frames()}, [batch([3, 4], [NORMAL]), batch([], [NORMAL])], [NORMAL])
    assert done == Pass(rows=[3, 4], unreadable={9: "broken"}, decode_seconds=0.5)


def test_each_backbone_computes_only_what_is_wanted_of_it() -> None:
    nets = {"a": Frames(), "b": Frames()}
    got: list[FeatureKey] = []
    reverse = dataclasses.replace(NORMAL, order="reversed")
    extract_features(
        nets,
        [batch([0], [NORMAL])],
        wanted=[("a", NORMAL), ("b", reverse)],
        write=lambda key, features: got.append(key),
        device=CPU,
    )
    assert sorted(name for name, _ in got) == ["a", "b"]
    assert (nets["a"].maps, nets["b"].maps) == (1, 1)


@pytest.mark.gpu
def test_a_gpu_computes_the_same_in_batches() -> None:
    specs = [NORMAL, dataclasses.replace(NORMAL, order="shuffled"), dataclasses.replace(NORMAL, pooling="conv5_max")]
    views = batch([0, 1, 2], [NORMAL])
    expected, _ = extracted({"net": Frames()}, [views], specs)
    backbone = Frames()
    got, _ = extracted({"net": backbone}, [views], specs, device=torch.device("cuda"))
    assert backbone.maps == 2, "one pass for each order, not for each video"
    for key, features in expected.items():
        assert got[key].device.type == "cpu"
        torch.testing.assert_close(got[key], features)


# --- order of the frames ----------------------------------------------------------------------------------------------


def numbered(num_videos: int, num_views: int, num_frames: int) -> Tensor:
    frames = torch.arange(num_frames, dtype=torch.float32)[:, None, None].expand(-1, 2, 2)
    return frames.expand(num_videos, num_views, 1, -1, -1, -1)


def frames_of(clips: Tensor) -> list[list[list[int]]]:
    numbers: list[list[list[int]]] = clips[:, :, 0, :, 0, 0].int().tolist()
    return numbers


@pytest.mark.parametrize(("num_frames", "middle"), [(1, 0), (4, 2), (5, 2)])
def test_frozen_and_reversed(num_frames: int, middle: int) -> None:
    clips = numbered(1, 1, num_frames)
    common: dict[str, Any] = {"rows": [0], "num_crops": 1, "seed": 0}
    assert frames_of(reorder(clips, "normal", **common)) == [[[*range(num_frames)]]]
    assert frames_of(reorder(clips, "reversed", **common)) == [[[*reversed(range(num_frames))]]]
    assert frames_of(reorder(clips, "frozen", **common)) == [[[middle] * num_frames]]


def test_shuffled_follows_from_seed_row_and_clip_and_crops_go_together() -> None:
    shuffled = frames_of(reorder(numbered(2, 6, 8), "shuffled", rows=[5, 7], num_crops=3, seed=1))
    for row, video in zip((5, 7), shuffled, strict=True):
        for view, clip in enumerate(video):
            assert clip == frame_permutation(8, seed=1, row=row, clip=view // 3).tolist()
    orders = {tuple(clip) for video in shuffled for clip in video}
    assert len(orders) == 4, "two clips of two videos, each in its own order"
    alone = frames_of(reorder(numbered(1, 6, 8), "shuffled", rows=[7], num_crops=3, seed=1))
    assert alone[0] == shuffled[1]
    other = frames_of(reorder(numbered(2, 6, 8), "shuffled", rows=[5, 7], num_crops=3, seed=2))
    assert other != shuffled


def test_shuffled_is_never_the_own_order() -> None:
    """Of 300 draws of 3 frames one in six would be."""
    drawn = [frame_permutation(3, seed=0, row=row, clip=0).tolist() for row in range(300)]
    assert [0, 1, 2] not in drawn
    assert {tuple(order) for order in drawn} == {(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}
    assert frame_permutation(1, seed=0, row=0, clip=0).tolist() == [0], "there is no other order"


def test_orders_share_pixels_and_reach_the_backbone() -> None:
    specs = [dataclasses.replace(NORMAL, order=order) for order in ("normal", "frozen", "shuffled", "reversed")]
    assert {pixels(spec) for spec in specs} == {NORMAL}
    views = batch([4, 6], [NORMAL])
    numbers = numbered(2, 2, 4).expand(-1, -1, 3, -1, -1, -1)
    views[NORMAL] = dataclasses.replace(views[NORMAL], clips=numbers)
    features, _ = extracted({"net": KnowsItsFrames()}, [views], specs, seed=3)
    got = {spec.order: features["net", spec].int().tolist() for spec in specs}
    assert got["normal"] == [[[0, 1, 2, 3]] * 2] * 2
    assert got["reversed"] == [[[3, 2, 1, 0]] * 2] * 2
    assert got["frozen"] == [[[2, 2, 2, 2]] * 2] * 2
    assert got["shuffled"] == [
        [frame_permutation(4, seed=3, row=row, clip=clip).tolist() for clip in range(2)] for row in (4, 6)
    ]


# --- pooling ----------------------------------------------------------------------------------------------------------


def conv5_by_hand(feature_map: np.ndarray) -> np.ndarray:
    """``[D, t, h, w]``: maxima over 2 x 2 places, an odd row or column left out, flattened."""
    D, t, h, w = feature_map.shape
    return np.array(
        [
            feature_map[d, k, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max()
            for d in range(D)
            for k in range(t)
            for y in range(h // 2)
            for x in range(w // 2)
        ]
    )


@pytest.mark.parametrize("size", [4, 5])
def test_both_poolings_come_from_one_pass(size: int) -> None:
    specs = [NORMAL, dataclasses.replace(NORMAL, pooling="conv5_max")]
    backbone = Frames()
    views = batch([1, 2], [NORMAL], size=size)
    features, _ = extracted({"net": backbone}, [views], specs)
    assert backbone.maps == 2, "one pass for each video"
    clips = views[NORMAL].clips
    assert features["net", specs[0]].equal(torch.stack([Frames().eval()(video) for video in clips]))
    expected = [[conv5_by_hand(clip.numpy()) for clip in video] for video in clips]
    assert features["net", specs[1]].shape == (2, 2, 3 * 4 * 2 * 2)
    np.testing.assert_array_equal(features["net", specs[1]].numpy(), np.array(expected))


def test_a_backbone_that_pools_itself_is_asked() -> None:
    specs = [NORMAL, dataclasses.replace(NORMAL, pooling="conv5_max")]
    views = batch([1], [NORMAL])
    features, _ = extracted({"net": OwnPooling()}, [views], specs)
    assert features["net", NORMAL].equal(views[NORMAL].clips[:, :, :, 0, 0, 0])


def test_a_map_too_small_for_maxima_is_refused_with_the_way_out() -> None:
    spec = dataclasses.replace(NORMAL, pooling="conv5_max")
    with pytest.raises(InputError, match=r"map of 1 x 1 .*input_transform\.crop"):
        extracted({"net": Frames()}, [batch([1], [NORMAL], size=1)], [spec])
