"""The supervised reference: a NumPy oracle of its loss, and that unlabelled videos do not count."""

import dataclasses

import numpy as np
import pytest
import torch

from ssl_video.methods.supervised import Supervised
from ssl_video.utils.distributed import rank, world_size
from ssl_video.utils.errors import InputError
from support.gloo import run_in_two_processes
from support.methods import build_method, random_batch


def test_loss_is_the_mean_over_labelled_videos() -> None:
    method, config = build_method("supervised")
    assert isinstance(method, Supervised)
    labels = torch.tensor([0, -1, 2, 1])
    batch = dataclasses.replace(random_batch(config), labels=labels)
    method.eval()
    with torch.no_grad():
        logits = method.head(method.backbone(batch.clips[:, 0])).double().numpy()
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean([log_probabilities[i, labels[i]] for i in (0, 2, 3)])
    assert method.losses(batch)["classification"].item() == pytest.approx(expected, abs=1e-5)


def test_a_batch_without_labels_costs_nothing() -> None:
    method, config = build_method("supervised")
    batch = dataclasses.replace(random_batch(config), labels=torch.full((4,), -1))
    assert method.losses(batch)["classification"].item() == 0
    assert "accuracy" not in method.observed


def test_data_without_classes_are_refused() -> None:
    method, _ = build_method("supervised")
    parts = {"backbone": method.backbone, "optimizer": method.make_optimizer, "scheduler": method.make_scheduler}
    with pytest.raises(InputError, match="2 classes or more, the data have 1"):
        Supervised(**parts, num_classes=1)  # type: ignore[arg-type]


def _share() -> tuple[float, torch.Tensor]:
    """Loss and gradient of this rank's half of a batch in which one half has three labels and the other one."""
    method, config = build_method("supervised")
    method.eval()  # batch norm as it is: only the loss talks between ranks
    labels = torch.tensor([0, 1, 2, -1, -1, -1, 1, -1])
    batch = dataclasses.replace(random_batch(config, batch_size=8), labels=labels)
    rows = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    parts = {name: getattr(batch, name)[rows] for name in ("clips", "indices", "labels", "rows", "videos", "positions")}
    loss = method.losses(dataclasses.replace(batch, **parts))["classification"]
    loss.backward()
    weight = method.head[1].weight.grad
    assert weight is not None
    return loss.item(), weight


def test_two_processes_equal_one_in_value_and_gradient() -> None:
    loss, gradient = _share()
    first, second = run_in_two_processes(_share)
    assert (first[0] + second[0]) / 2 == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close((first[1] + second[1]) / 2, gradient, atol=1e-6, rtol=1e-4)
