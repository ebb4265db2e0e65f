"""The supervised reference: a NumPy oracle of its loss, and that unlabelled videos do not count."""

import dataclasses

import numpy as np
import pytest
import torch

from ssl_video.methods.supervised import Supervised
from ssl_video.utils.errors import InputError
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
