"""MoCo's order of operations, its queue, and its equality across ranks."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from ssl_video.losses.info_nce import info_nce_queue
from ssl_video.methods.moco import MoCo
from ssl_video.modules.projector import Projector
from ssl_video.utils.distributed import rank, world_size
from support.gloo import run_in_two_processes
from support.methods import attach, build_method, random_batch


def build_moco(*overrides: str, **kwargs: int) -> tuple[MoCo, Any]:
    method, config = build_method("moco", "method.queue_length=64", *overrides, **kwargs)
    assert isinstance(method, MoCo)
    return method, config


def test_symmetric_loss_is_the_mean_of_both_directions() -> None:
    """With ρ = 2 and no batch norm in train mode, each direction is one query's loss."""
    batch_loss = {}
    for symmetric in (True, False):
        method, config = build_moco(f"method.symmetric={str(symmetric).lower()}", "method.shuffle_bn=false")
        method.eval()
        batch = random_batch(config)
        batch_loss[symmetric] = method.losses(batch)["info_nce"]
        if not symmetric:
            other, _ = build_moco("method.symmetric=false", "method.shuffle_bn=false")
            other.eval()
            swapped = replace(batch, clips=batch.clips.flip(1))
            batch_loss["swapped"] = other.losses(swapped)["info_nce"]
    mean = (batch_loss[False] + batch_loss["swapped"]) / 2
    torch.testing.assert_close(batch_loss[True], mean)


def test_keys_are_enqueued_after_the_logits_and_all_of_them() -> None:
    method, config = build_moco()
    before = method.queue.features.clone()
    batch = random_batch(config, batch_size=4)
    method.eval()
    expected = method.losses(batch)["info_nce"]
    assert int(method.queue.pushed) == 8  # both clips of four videos
    changed = (method.queue.features != before).any(dim=1)
    assert changed.sum() == 8
    torch.testing.assert_close(method.queue.features[changed].norm(dim=1), torch.ones(8))
    again, _ = build_moco()
    again.eval()
    torch.testing.assert_close(again.losses(batch)["info_nce"], expected)  # the old queue: pushing changed nothing


def test_keys_of_the_own_video_are_no_negatives() -> None:
    """A queue full of the batch's own keys leaves each query the others' only."""
    method, config = build_moco("method.shuffle_bn=false", "method.momentum=1.0", "method.queue_length=8")
    method.eval()
    batch = random_batch(config, batch_size=4)
    method.losses(batch)  # the queue now holds both keys of the four videos
    attach(method, global_step=1)
    loss = method.losses(batch)["info_nce"]
    keys = [normalize(method.key_encoder(clips), dim=1) for clips in batch.clips.unbind(1)]
    expected = []
    for query, key in (keys, keys[::-1]):  # momentum 1: the key encoder is the query encoder as it began
        for video in range(4):
            others = torch.cat([k[[v for v in range(4) if v != video]] for k in keys])
            logits = torch.cat([(query[video] @ key[video]).reshape(1), others @ query[video]]) / method.temperature
            expected.append(-logits.log_softmax(dim=0)[0])
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_key_encoder_moves_before_the_keys_are_made() -> None:
    method, config = build_moco("method.momentum=0.0", "method.momentum_schedule=constant", "method.shuffle_bn=false")
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(0.01)
    method.eval()
    batch = random_batch(config, batch_size=2)
    method.losses(batch)
    keys = normalize(method.query_encoder(batch.clips[:, 0]), dim=1)
    torch.testing.assert_close(method.queue.features[:2], keys)


@pytest.mark.parametrize("form", ["mean_of_ce", "sum_in_log"])
def test_three_clips_use_each_as_query_against_the_other_two(form: Any) -> None:
    method, config = build_moco("sampler.num_views=3", f"method.multi_positive={form}", "method.shuffle_bn=false")
    method.eval()
    queue = method.queue.features
    batch = random_batch(config)
    loss = method.losses(batch)["info_nce"]
    assert int(method.queue.pushed) == 12
    # At step 0 the key encoder is the query encoder, so a clip's key is its query.
    clips = [normalize(method.query_encoder(view), dim=1) for view in batch.clips.unbind(1)]
    expected = [
        info_nce_queue(
            clips[view],
            torch.stack([clips[other] for other in range(3) if other != view], dim=1),
            queue,
            temperature=method.temperature,
            multi_positive=form,
        )
        for view in range(3)
    ]
    torch.testing.assert_close(loss, torch.stack(expected).mean())


@pytest.mark.slow
def test_keys_are_normalised_with_other_companions_than_the_queries() -> None:
    """Shuffled keys change with the step's permutation where groups are normalised apart, and never in eval mode."""
    for mode, differ in ((True, True), (False, False)):
        keys = {}
        for shuffled in (True, False):
            method, config = build_moco("method.batch_norm_group_size=2", f"method.shuffle_bn={str(shuffled).lower()}")
            method.train(mode)
            keys[shuffled] = method._encode_keys(random_batch(config, batch_size=8).clips[:, 0], 0)
        assert torch.allclose(keys[True], keys[False], atol=1e-5) is not differ


def test_groups_are_normalised_apart() -> None:
    """A video's embedding depends on its group's companions only; without groups on the whole batch."""
    for size, reaches in ((2, False), ("null", True)):
        method, config = build_moco(f"method.batch_norm_group_size={size}", "method.shuffle_bn=false")
        clips = random_batch(config, batch_size=4).clips[:, 0]
        before = method._encode(method.query_encoder, clips)[0]
        changed = torch.cat([clips[:3], clips[3:] + 1])
        after = method._encode(method.query_encoder, changed)[0]
        assert torch.allclose(before, after, atol=1e-5) is not reaches


def test_loss_does_not_depend_on_the_order_of_the_batch() -> None:
    losses = []
    for flipped in (False, True):
        method, config = build_moco()
        method.eval()
        batch = random_batch(config)
        clips = batch.clips.flip(0) if flipped else batch.clips
        losses.append(method.losses(replace(batch, clips=clips))["info_nce"])
    torch.testing.assert_close(losses[0], losses[1])


def test_no_step_is_taken_until_the_queue_is_full() -> None:
    method, config = build_moco("method.fill_queue_first=true", "method.queue_length=16")
    optimizer = torch.optim.SGD(method.backbone.parameters(), lr=0.1)
    start = [parameter.clone() for parameter in method.backbone.parameters()]
    calls = []
    for step in range(2):
        attach(method, global_step=step)

        def closure() -> torch.Tensor:
            calls.append(1)
            loss = method.losses(random_batch(config))["info_nce"]
            loss.backward()
            return loss

        method.optimizer_step(0, step, optimizer, closure)
    assert len(calls) == 2
    assert all(torch.equal(a, b) for a, b in zip(start, method.backbone.parameters(), strict=True))
    assert method.queue.is_full


@pytest.mark.parametrize(
    ("num_layers", "temperature", "parameters"),
    [(1, 0.07, 2048 * 128 + 128), (2, 0.2, 2048 * 2048 + 2048 + 2048 * 128 + 128)],
)
def test_settings_of_the_first_two_versions(num_layers: int, temperature: float, parameters: int) -> None:
    """MoCo v1 and v2: one direction, a fixed momentum, a projector of one or two layers without batch norm."""
    with torch.device("meta"):
        projector = Projector(2048, hidden_features=2048, out_features=128, num_layers=num_layers)
    assert sum(parameter.numel() for parameter in projector.parameters()) == parameters
    method, config = build_moco(
        f"+method.num_layers={num_layers}",
        f"method.temperature={temperature}",
        "method.batch_norm=none",
        "method.symmetric=false",
        "method.momentum=0.999",
        "method.momentum_schedule=constant",
        "method.shuffle_bn=true",
    )
    assert [method.key_encoder.momentum_at(step, 100) for step in (0, 50, 100)] == [0.999] * 3
    assert torch.isfinite(method.losses(random_batch(config, batch_size=4))["info_nce"])
    assert int(method.queue.pushed) == 4  # the key of each video, not the query


def _loss_and_gradient(batch_norm_eval: bool) -> tuple[float, torch.Tensor, torch.Tensor]:
    """One step of this rank's part of a global batch of 8; gradients averaged over ranks as DDP does."""
    method, config = build_moco("method.shuffle_bn=false")
    if batch_norm_eval:
        method.eval()
    batch = random_batch(config, batch_size=8)
    share = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    names = ("clips", "indices", "labels", "rows", "videos", "positions")
    own = replace(batch, **{name: getattr(batch, name)[share] for name in names})
    loss = method.losses(own)["info_nce"]
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
    if world_size() > 1:
        torch.distributed.all_reduce(gradient)
        gradient /= world_size()
        mean = loss.detach().clone()
        torch.distributed.all_reduce(mean)
        loss = mean / world_size()
    # One process enqueues view by view, two processes rank by rank: the same keys in another order.
    queue = method.queue.features
    return loss.item(), gradient, queue[queue[:, 0].argsort()]


def test_two_processes_give_the_value_gradient_and_queue_of_one() -> None:
    value, gradient, queue = _loss_and_gradient(True)
    results = run_in_two_processes(_loss_and_gradient, True)
    for other_value, other_gradient, other_queue in results:
        assert other_value == pytest.approx(value, rel=1e-5)
        torch.testing.assert_close(other_gradient, gradient, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(other_queue, queue, rtol=1e-4, atol=1e-6)
    assert gradient.abs().max() > 1e-4


def _queue_after_five_steps() -> torch.Tensor:
    method, config = build_moco("method.queue_length=50")
    for step in range(5):
        attach(method, global_step=step)
        method.losses(random_batch(config, batch_size=4, seed=10 * step + rank()))
    return method.queue.features


def test_queues_are_equal_on_both_ranks_after_five_steps() -> None:
    first, second = run_in_two_processes(_queue_after_five_steps)
    assert torch.equal(first, second)
    assert not torch.equal(first, build_moco("method.queue_length=50")[0].queue.features)
