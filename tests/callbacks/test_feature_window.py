"""The last clips' features, in one process and in two, and across a resume."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_video.callbacks.feature_window import FeatureWindow
from ssl_video.data.batch import ClipBatch
from support.gloo import run_in_two_processes
from support.methods import build_method, random_batch


class Net(nn.Module):
    """Three numbers of each clip."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.flatten(1)[:, [0, 7, 20]]


def batch(seed: int, *, videos: int = 4, views: int = 2) -> ClipBatch:
    clips = torch.randn(videos, views, 3, 2, 3, 3, generator=torch.Generator().manual_seed(seed))
    numbers = torch.arange(videos)
    return ClipBatch(clips, torch.zeros(videos, views, 2, dtype=torch.int64), numbers, numbers, numbers, numbers)


def filled(net: nn.Module, seeds: list[int], *, size: int) -> FeatureWindow:
    window = FeatureWindow(net, size=size)
    for seed in seeds:
        window.tap.clear()
        for clips in batch(seed).clips.unbind(1):
            net(clips)
        window.take()
    return window


def numpy_alignment(own: ClipBatch) -> float:
    features = Net()(own.clips.flatten(0, 1)).unflatten(0, own.clips.shape[:2]).double().numpy()
    unit = features / np.linalg.norm(features, axis=2, keepdims=True)
    return float(((unit[:, 0] - unit[:, 1]) ** 2).sum(axis=1).mean())


def test_only_the_last_clips_count() -> None:
    """Eight clips a batch: a window of 16 holds the last two batches, one of 17 three."""
    alone = filled(Net(), [3, 4], size=16).describe()
    assert filled(Net(), [1, 2, 3, 4], size=16).describe() == alone
    assert filled(Net(), [1, 2, 3, 4], size=17).describe() == filled(Net(), [2, 3, 4], size=100).describe() != alone


def test_alignment_is_that_of_numpy_whatever_the_order() -> None:
    own = batch(0)
    for order in (own.clips.unbind(1), [own.clips.transpose(0, 1).flatten(0, 1)], [own.clips.flatten(0, 1)]):
        net = Net()
        window = FeatureWindow(net, size=8)
        for clips in order:
            net(clips)
        assert window.alignment(own, window.tap.inputs) == pytest.approx(numpy_alignment(own), abs=1e-6)


def test_no_alignment_where_clips_are_no_pairs() -> None:
    net, single = Net(), batch(0, views=1)
    window = FeatureWindow(net, size=8)
    net(single.clips[:, 0])
    assert window.alignment(single, window.tap.inputs) is None
    assert window.alignment("no batch of clips", window.tap.inputs) is None
    window.tap.clear()
    pairs = batch(0)
    net(pairs.clips[:, 0])
    net(pairs.clips[:, 1].flip(2))
    assert window.alignment(pairs, window.tap.inputs) is None


def test_an_output_of_another_kind_is_left_out() -> None:
    window = FeatureWindow(nn.Identity(), size=8)
    window.tap.module(torch.zeros(1, 3))
    window.take()
    assert window.describe() == {}


def test_a_resumed_window_goes_on() -> None:
    whole = filled(Net(), [1, 2, 3], size=24)
    again = FeatureWindow(Net(), size=24)
    again.load_state_dict(filled(Net(), [1, 2], size=24).state_dict(), device=torch.device("cpu"))
    for clips in batch(3).clips.unbind(1):
        again.tap.module(clips)
    again.take()
    assert again.describe() == whole.describe()


def on_two_processes() -> Any:
    rank = torch.distributed.get_rank()
    window = filled(Net(), [10 + rank, 20 + rank], size=32)
    state = window.state_dict()
    again = FeatureWindow(Net(), size=32)
    again.load_state_dict(state, device=torch.device("cpu"))
    described = window.describe()
    same = again.describe() == described
    own = batch(20 + rank)
    return described, window.alignment(own, window.tap.inputs), same


@pytest.mark.slow
def test_two_processes_look_at_the_clips_of_both() -> None:
    (first, alignment, same), (second, other, _) = run_in_two_processes(on_two_processes)
    expected = filled(Net(), [10, 20, 11, 21], size=100).describe()
    assert first == pytest.approx(expected) and second == {}
    assert same
    assert alignment == other == pytest.approx((numpy_alignment(batch(20)) + numpy_alignment(batch(21))) / 2, abs=1e-6)


@pytest.mark.parametrize(("name", "has"), [("moco", True), ("vcop", True), ("opn", False)])
def test_which_methods_have_an_alignment(name: str, has: bool) -> None:
    method, config = build_method(name)
    window = FeatureWindow(method.backbone, size=64)
    own = random_batch(config)
    method.losses(own)
    found = window.alignment(own, window.tap.inputs)
    assert (found is not None) == has
    assert not has or 0 < found < 4  # type: ignore[operator]
