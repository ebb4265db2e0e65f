import copy

import pytest
import torch
from torch import nn

from ssl_video.modules.momentum_encoder import MomentumEncoder


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def moved(online: nn.Module) -> nn.Module:
    """The same network with every parameter changed."""
    other = copy.deepcopy(online)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter))
    return other


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("start", "step", "expected"),
    [
        (0.994, 0, 0.994),
        (0.994, 50, 0.9948787),
        (0.994, 100, 0.997),
        (0.994, 150, 0.9991213),
        (0.994, 200, 1.0),
        (0.994, 300, 1.0),
        (0.996, 50, 0.9965858),
        (0.996, 100, 0.998),
        (0.996, 150, 0.9994142),
    ],
)
def test_cosine_momentum(start, step, expected):
    assert MomentumEncoder(network(), momentum=start).momentum_at(step, 200) == pytest.approx(expected, abs=5e-8)


def test_constant_momentum():
    encoder = MomentumEncoder(network(), momentum=0.999, schedule="constant")
    assert encoder.momentum_at(0, 10) == encoder.momentum_at(10, 10) == 0.999


def test_step_is_the_weighted_mean():
    online = network()
    encoder = MomentumEncoder(online, momentum=0.9, schedule="constant")
    other = moved(online)
    encoder.step(other, step=0, total_steps=10)
    for own, before, new in zip(encoder.encoder.parameters(), online.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own, 0.9 * before + 0.1 * new)


def test_momentum_0_copies_and_1_leaves_every_bit():
    online = network()
    other = moved(online)
    copied = MomentumEncoder(online, momentum=0.0, schedule="constant")
    copied.step(other, step=0, total_steps=10)
    assert equal(copied.encoder, other)
    kept = MomentumEncoder(online, momentum=1.0, schedule="constant")
    kept.step(other, step=0, total_steps=10)
    assert equal(kept.encoder, online)


def test_a_repeated_step_is_ignored_also_after_a_reload():
    online = network()
    encoder = MomentumEncoder(online, momentum=0.5, schedule="constant")
    other = moved(online)
    encoder.step(other, step=3, total_steps=10)
    once = copy.deepcopy(encoder.encoder)
    encoder.step(other, step=3, total_steps=10)
    assert equal(encoder.encoder, once)
    reloaded = MomentumEncoder(network(), momentum=0.5, schedule="constant")
    reloaded.load_state_dict(encoder.state_dict())
    reloaded.step(other, step=3, total_steps=10)
    assert equal(reloaded.encoder, once)
    reloaded.step(other, step=4, total_steps=10)
    assert not equal(reloaded.encoder, once)


def test_no_gradient_enters_and_the_original_stays_trainable():
    online = network()
    encoder = MomentumEncoder(online)
    features = torch.randn(5, 3, requires_grad=True)
    assert not encoder(features).requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters())


def test_buffers_are_its_own():
    online = network()
    online(torch.randn(64, 3) + 5.0)
    encoder = MomentumEncoder(online, momentum=0.0, schedule="constant")
    at_start = encoder.encoder[1].running_mean.clone()
    assert torch.equal(at_start, online[1].running_mean)
    online(torch.randn(64, 3) - 50.0)
    encoder.step(online, step=0, total_steps=10)
    assert torch.equal(encoder.encoder[1].running_mean, at_start)
    encoder(torch.randn(64, 3) - 50.0)
    assert not torch.equal(encoder.encoder[1].running_mean, at_start)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match=r"momentum=1\.5"):
        MomentumEncoder(network(), momentum=1.5)
    with pytest.raises(ValueError, match="'linear'"):
        MomentumEncoder(network(), schedule="linear")
