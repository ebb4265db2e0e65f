"""The bare loop that ours is timed against computes the same numbers."""

from typing import Any

import pytest
import torch

from benchmark.bare_steps import BareStep
from benchmark.step import METHODS
from support.methods import attach, build_method, random_batch


@pytest.mark.parametrize("name", METHODS)
def test_the_bare_step_is_ours(name: str) -> None:
    method, config = build_method(name)
    batch = random_batch(config)
    bare = BareStep(method, clips=batch.clips, videos=batch.videos)
    made: Any = method.configure_optimizers()
    for step in range(3):
        attach(method, global_step=step)
        torch.manual_seed(step)
        losses = method.losses(batch)
        loss = torch.stack(list(losses.values())).sum()
        made["optimizer"].zero_grad()
        loss.backward()
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
        torch.manual_seed(step)
        # MoCo shuffles its keys by a seed of its own: other companions in the batch norm, nearly the same loss.
        torch.testing.assert_close(bare(), loss.detach(), rtol=0.05 if name == "moco" else 1e-4, atol=0)
