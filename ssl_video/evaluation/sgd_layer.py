"""A linear layer on stored clip features, trained by minibatch SGD as the papers train it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssl_video.optim.schedules import WarmupCosine

FeatureNorm = Literal["none", "standardise", "l2"]


@dataclass(frozen=True, kw_only=True)
class SGDRecipe:
    """How the layer is trained. An epoch shows each video once, by one of its stored clips, drawn anew.

    Attributes:
        batch_size: videos per step; an epoch's last incomplete batch is left out.
        epochs: length of the training.
        optimizer: makes the optimizer from the parameters and `lr`.
        scheduler: makes the schedule from the optimizer, `total_steps` and `steps_per_epoch`.
        feature_norm: `none`; `standardise`, each feature to mean 0 and deviation 1 over the clips that are learnt from;
            or `l2`, each clip's features to length 1.
        init_std: standard deviation of the first weights; biases start at 0.
        seed: of first weights, order and clips.
    """

    batch_size: int = 64
    epochs: float = 100.0
    optimizer: Callable[..., Optimizer] = field(default=partial(SGD, momentum=0.9))
    scheduler: Callable[..., LRScheduler] = WarmupCosine
    feature_norm: FeatureNorm = "standardise"
    init_std: float = 0.01
    seed: int = 0

    def fit(self, features: Tensor, labels: Tensor, *, lr: float) -> "SGDLayer":
        """Train the layer on videos `[N, V, D]` with labels `[N]`, at a learning rate of `lr`."""
        generator = torch.Generator().manual_seed(self.seed)
        classes, targets = labels.unique(return_inverse=True)
        shift, scale = _standardisation(features, self.feature_norm)
        first = self.init_std * torch.randn(len(classes), features.shape[2], generator=generator)
        weight = first.to(features).requires_grad_()
        bias = torch.zeros(len(classes)).to(features).requires_grad_()
        layer = SGDLayer(weight, bias, classes, shift, scale, unit_length=self.feature_norm == "l2")
        steps_per_epoch = len(features) // self.batch_size
        steps = max(1, round(self.epochs * steps_per_epoch))
        # Groups of one each: an optimizer may treat biases apart.
        groups: list[dict[str, Any]] = [{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}]
        optimizer = self.optimizer(groups, lr=lr)
        scheduler = self.scheduler(optimizer, total_steps=steps, steps_per_epoch=steps_per_epoch)
        order = torch.empty(0, dtype=torch.int64)
        for step in range(steps):
            place = step % steps_per_epoch
            if place == 0:
                order = torch.randperm(len(features), generator=generator)
                clips = torch.randint(features.shape[1], (len(features),), generator=generator)
            rows = order[place * self.batch_size : (place + 1) * self.batch_size]
            loss = cross_entropy(layer.logits(features[rows, clips[rows]]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        weight.requires_grad_(False)
        bias.requires_grad_(False)
        return layer


@dataclass(frozen=True)
class SGDLayer:
    """A trained layer with the normalisation of its input.

    Attributes:
        weight: `[K, D]`.
        bias: `[K]`.
        classes: `[K]` the classes it knows, ascending.
        shift: `[D]`, subtracted from the features first.
        scale: `[D]`, divided by; infinite for a feature that does not vary.
        unit_length: whether they are scaled to length 1 then.
    """

    weight: Tensor
    bias: Tensor
    classes: Tensor
    shift: Tensor
    scale: Tensor
    unit_length: bool

    def logits(self, clips: Tensor) -> Tensor:
        """Return `[M, K]` of features `[M, D]`."""
        inputs = (clips - self.shift) / self.scale
        return torch.addmm(self.bias, normalize(inputs, dim=1) if self.unit_length else inputs, self.weight.T)


def _standardisation(features: Tensor, feature_norm: FeatureNorm) -> tuple[Tensor, Tensor]:
    """Return what is subtracted and divided by, each `[D]`; nothing but for `standardise`."""
    clips = features.flatten(0, 1)
    if feature_norm != "standardise":
        return torch.zeros_like(clips[0]), torch.ones_like(clips[0])
    variance, mean = torch.var_mean(clips, dim=0, correction=0)
    deviation = variance.sqrt()
    # A feature that does not vary carries nothing; the rounding in its deviation must not be blown up.
    varies = deviation > 1e-6 * clips.abs().amax(dim=0)
    return mean, torch.where(varies, deviation, torch.inf)
