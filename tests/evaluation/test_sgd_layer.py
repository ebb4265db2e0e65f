from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.optim import SGD

from ssl_video.evaluation.sgd_layer import SGDLayer, SGDRecipe
from ssl_video.optim.schedules import Constant, WarmupCosine
from support.features import feature_set

LABELS = [0, 1, 2, 3] * 6


def test_layer_equals_scikit_learn() -> None:
    train, test = feature_set(LABELS, noise=0.5, num_clips=1), feature_set(LABELS, noise=0.5, num_clips=1)
    recipe = SGDRecipe(
        batch_size=24, epochs=3000, optimizer=partial(SGD, momentum=0.9, weight_decay=0.1), scheduler=Constant
    )
    layer = recipe.fit(train.features, train.labels, lr=0.5)
    scaler = StandardScaler().fit(train.features[:, 0].numpy())
    model = LogisticRegression(C=1 / (0.1 * 24), tol=1e-8, max_iter=2000)
    model.fit(scaler.transform(train.features[:, 0].numpy()), LABELS)
    expected = model.predict_proba(scaler.transform(test.features[:, 0].numpy()))
    np.testing.assert_allclose(layer.logits(test.features[:, 0]).softmax(dim=1).numpy(), expected, atol=1e-3)


def test_an_epoch_shows_each_video_once_by_one_of_its_clips() -> None:
    features = feature_set([0, 1] * 4, num_clips=5)
    seen: list[torch.Tensor] = []

    class Looked(SGDLayer):
        def logits(self, clips: torch.Tensor) -> torch.Tensor:
            seen.append(clips)
            return super().logits(clips)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_video.evaluation.sgd_layer.SGDLayer", Looked)
        SGDRecipe(batch_size=4, epochs=2, feature_norm="none").fit(features.features, features.labels, lr=0.1)
    assert len(seen) == 4
    clips = features.features.flatten(0, 1)
    for epoch in (seen[:2], seen[2:]):
        places = [int((clips == row).all(dim=1).nonzero()[0, 0]) for row in torch.cat(epoch)]
        assert sorted(place // 5 for place in places) == list(range(8))


def test_classes_never_seen_have_no_output() -> None:
    videos = feature_set([0, 2] * 8)
    layer = SGDRecipe(batch_size=4, epochs=5).fit(videos.features, videos.labels, lr=0.1)
    assert layer.classes.tolist() == [0, 2]
    assert layer.logits(videos.features[:, 0]).shape == (16, 2)


def test_features_that_do_not_vary_carry_nothing() -> None:
    videos = feature_set(LABELS)
    padded = torch.cat([videos.features, torch.full((24, 3, 2), 0.1)], dim=2)
    layer = SGDRecipe(batch_size=8, epochs=5).fit(padded, videos.labels, lr=0.1)
    other = padded.clone()
    other[..., 8:] = 77.0
    assert torch.equal(layer.logits(padded[:, 0]), layer.logits(other[:, 0]))


def test_last_incomplete_batch_is_left_out() -> None:
    videos = feature_set(LABELS)
    steps: list[int] = []

    def noted(optimizer: torch.optim.Optimizer, *, total_steps: int, steps_per_epoch: int) -> Constant:
        steps.extend([total_steps, steps_per_epoch])
        return Constant(optimizer, total_steps=total_steps, steps_per_epoch=steps_per_epoch)

    SGDRecipe(batch_size=7, epochs=2.5, scheduler=noted).fit(videos.features, videos.labels, lr=0.1)
    assert steps == [8, 3]  # 7.5 rounded to even


def test_learning_rate_follows_the_schedule_from_the_one_given() -> None:
    rates: list[float] = []

    class Noted(SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])
            super().step(closure)

    schedule = partial(WarmupCosine, warmup_epochs=1.0, rises_to="cosine_value")
    videos = feature_set(LABELS)
    SGDRecipe(batch_size=12, epochs=3, optimizer=partial(Noted, lr=99.0), scheduler=schedule).fit(
        videos.features, videos.labels, lr=2.0
    )
    top = (1 + np.cos(np.pi * 2 / 6)) / 2
    cosine = [2.0 * (1 + np.cos(np.pi * step / 6)) / 2 for step in range(2, 6)]
    assert rates == pytest.approx([0.0, top, *cosine])
