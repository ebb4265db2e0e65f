"""Features are taken as they pass, whatever a method does, and nothing of the method changes by it."""

from typing import Any

import pytest
import torch

from ssl_video.backbones.recompute import recompute_activations
from ssl_video.callbacks.taps import Tap
from support.methods import build_method, random_batch

# Features of a batch of 4 videos that a step learns from: those of the views that get a gradient.
ROWS = {
    **{"moco": 8, "byol": 8, "simclr": 8, "swav": 8, "cvrl": 8, "moco_v3": 8, "vcop": 12, "supervised": 4},
    **{"opn": 16, "shuffle_and_learn": 12, "o3n": 24},
}


@pytest.mark.parametrize(
    "name",
    ["moco", "cvrl", *(pytest.param(name, marks=pytest.mark.slow) for name in ROWS if name not in ("moco", "cvrl"))],
)
def test_rows_of_every_method(name: str) -> None:
    method, config = build_method(name)
    tap = Tap(method.backbone)
    sum(method.losses(random_batch(config)).values()).backward()  # type: ignore[union-attr]
    outputs = torch.cat(tap.outputs)
    assert outputs.shape == (ROWS[name], method.backbone.feature_dim)
    assert not outputs.requires_grad
    assert sum(map(len, tap.inputs)) == len(outputs)


def test_a_method_that_asks_for_the_map_is_watched_there() -> None:
    method, config = build_method("tcl")
    batch, backbone = random_batch(config), method.backbone
    own = backbone.feature_map
    tap = Tap(backbone)
    method.losses(batch)
    assert not tap.outputs
    tap.watch_map()
    tap.watch_map()  # once is enough
    method.losses(batch)
    assert torch.cat(tap.outputs).shape == (len(batch.labeled), backbone.feature_dim)
    tap.close()
    assert "feature_map" not in vars(backbone) and backbone.feature_map == own


def test_closing_puts_a_compiled_map_back() -> None:
    method, _ = build_method("tcl")
    backbone: Any = method.backbone
    backbone.feature_map = compiled = torch.compile(backbone.feature_map, backend="eager")
    tap = Tap(backbone)
    tap.watch_map()
    assert backbone.feature_map is not compiled
    tap.close()
    assert backbone.feature_map is compiled


def test_evaluations_are_not_taken() -> None:
    method, config = build_method("moco")
    tap = Tap(method.backbone)
    clips = random_batch(config).clips[:, 0]
    with torch.no_grad():
        method.backbone(clips)
    method.backbone.eval()
    method.backbone(clips)
    assert not tap.outputs


def test_nothing_is_taken_twice_where_activations_are_computed_again() -> None:
    method, config = build_method("moco")
    recompute_activations(method.backbone)
    tap = Tap(method.backbone)
    sum(method.losses(random_batch(config)).values()).backward()  # type: ignore[union-attr]
    assert len(torch.cat(tap.outputs)) == ROWS["moco"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simclr", "cvrl"])
def test_a_step_that_is_compiled_whole_is_watched_too(name: str) -> None:
    """Without being compiled anew in each step."""
    method, config = build_method(name)
    own: Any = method
    torch._dynamo.reset()
    own.losses = torch.compile(method.losses, backend="eager")
    tap = Tap(method.backbone)
    counted = torch._dynamo.utils.counters["stats"]
    for seed in range(4):
        if seed == 2:
            before = counted["unique_graphs"]
        tap.clear()
        own.losses(random_batch(config, seed=seed))
        assert len(torch.cat(tap.outputs)) == ROWS[name]
    assert counted["unique_graphs"] == before
    torch._dynamo.reset()


def test_losses_and_names_of_the_state_are_the_same_with_a_tap() -> None:
    plain, config = build_method("byol")
    watched, _ = build_method("byol")
    names = list(watched.state_dict())
    tap, batch = Tap(watched.backbone), random_batch(config)
    losses = []
    for method in (plain, watched):
        torch.manual_seed(0)
        losses.append(method.losses(batch))
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    assert list(watched.state_dict()) == names
    tap.close()
    assert not watched.backbone._forward_hooks
