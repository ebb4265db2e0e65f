import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ssl_video.losses.in_batch_info_nce import in_batch_info_nce
from ssl_video.utils.errors import InputError
from support.methods import build_method, random_batch


def test_both_directions_are_added() -> None:
    method, config = build_method("moco_v3")
    method.eval()
    views = (batch := random_batch(config)).clips.unbind(1)
    loss = method.losses(batch)["info_nce"]
    queries = [method.predictor(method.query_encoder(clips)) for clips in views]  # type: ignore[operator]
    keys = [method.key_encoder(clips) for clips in views]  # type: ignore[operator]
    temperature = config.method.temperature
    one = in_batch_info_nce(queries[0], keys[1], temperature=temperature)
    other = in_batch_info_nce(queries[1], keys[0], temperature=temperature)
    torch.testing.assert_close(loss, one + other)
    swapped = method.losses(replace(batch, clips=batch.clips.flip(1)))["info_nce"]
    torch.testing.assert_close(swapped, loss)


def test_total_of_equal_clips() -> None:
    method, config = build_method("moco_v3")
    method.eval()
    batch = random_batch(config, batch_size=4)
    loss = method.losses(replace(batch, clips=batch.clips[:1, :1].expand_as(batch.clips)))["info_nce"]
    assert loss.item() == pytest.approx(4 * config.method.temperature * math.log(4), abs=1e-4)


def layers(network: Any) -> list[str]:
    return [type(layer).__name__ for layer in network.layers]


def test_heads_of_the_reference() -> None:
    """No biases; batch norm after every layer, on a ResNet's prediction none."""
    norm, resnet = "SyncBatchNorm", "method.predictor_batch_norm=hidden"
    method, _ = build_method("moco_v3", resnet, "method.projector_layers=2")
    assert layers(method.projector) == ["Linear", norm, "ReLU", "Linear", norm]
    assert layers(method.predictor) == ["Linear", norm, "ReLU", "Linear"]
    vit, _ = build_method("moco_v3", "method.predictor_batch_norm=all", "method.projector_layers=3")
    assert layers(vit.projector) == ["Linear", norm, "ReLU", "Linear", norm, "ReLU", "Linear", norm]
    assert layers(vit.predictor) == ["Linear", norm, "ReLU", "Linear", norm]
    for network in (method.projector, method.predictor, vit.projector, vit.predictor):
        linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]  # type: ignore[union-attr]
        assert all(layer.bias is None for layer in linear)
    assert vit.projector.layers[-1].weight is None and vit.projector.layers[1].weight is not None  # type: ignore[index,union-attr]


def test_three_clips_are_refused() -> None:
    method, _ = build_method("moco_v3")
    with pytest.raises(InputError, match=r"sampler\.num_views=3"):
        method.check_batch(num_views=3, num_frames=8)
