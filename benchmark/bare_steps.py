"""Training steps as a script without a framework has them: what ``benchmark/step.py`` sets ours against.

Each is made from a method of ours, whose network it copies weight by weight, and then writes out the rest: forward
passes, the loss in plain torch, backward, the optimizer's and the schedule's step. Nothing is logged, checked or
re-seeded. A test holds the first steps of both to the same numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from itertools import combinations, permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from ssl_video.methods.cvrl import CVRL
from ssl_video.methods.moco import MoCo
from ssl_video.methods.vcop import VCOP

Loss = Callable[[Tensor, Tensor, int], Tensor]
"""Clips ``[B, V, C, T, H, W]``, numbers of the videos ``[B]`` and the step's number to the loss."""


class BareStep:
    """One optimizer step on a batch.

    Args:
        method: ours, attached to a trainer, whose network, optimizer and schedule are used.
        clips: ``[B, V, C, T, H, W]``.
        videos: ``[B]``.
        autocast: what each forward pass runs under, None for nothing.
    """

    def __init__(self, method: Any, *, clips: Tensor, videos: Tensor, autocast: torch.dtype | None = None) -> None:
        self.method = copy_of(method).to(clips.device)
        made = self.method.configure_optimizers()
        self.optimizer, self.scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
        self.clips, self.videos, self.autocast = clips, videos, autocast
        self.loss = LOSSES[type(method)](self.method)
        self.step = 0

    def __call__(self) -> Tensor:
        """Does the step and returns the loss, on the device."""
        self.optimizer.zero_grad()
        with torch.autocast(self.clips.device.type, self.autocast, enabled=self.autocast is not None):
            loss = self.loss(self.clips, self.videos, self.step)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        return loss.detach()


def copy_of(method: Any) -> Any:
    """A method with weights of its own and the same trainer."""
    trainer, method._trainer = method._trainer, None
    try:
        copied = copy.deepcopy(method)
    finally:
        method._trainer = trainer
    copied._trainer = trainer
    return copied


def moco(method: MoCo) -> Loss:
    """Queries, moved key encoder, keys in shuffled groups, InfoNCE against the old queue."""
    online, keys = nn.Sequential(method.backbone, method.projector), method.key_encoder.encoder
    total_steps, temperature, size = method.total_steps, method.temperature, method.batch_norm_group_size
    queue, owners = method.queue.features, method.queue.owners
    pointer = 0

    def encode(network: nn.Module, clips: Tensor) -> Tensor:
        groups = clips.tensor_split(math.ceil(len(clips) / (size or len(clips))))
        return normalize(torch.cat([network(group) for group in groups]), dim=1)

    def loss(clips: Tensor, videos: Tensor, step: int) -> Tensor:
        nonlocal queue, owners, pointer
        first, second = clips.unbind(1)
        queries = [encode(online, first), encode(online, second)]
        with torch.no_grad():
            momentum = 1 - (1 - method.key_encoder.momentum) * (math.cos(math.pi * step / total_steps) + 1) / 2
            for own, other in zip(keys.parameters(), online.parameters(), strict=True):
                own.lerp_(other, 1 - momentum)
            made = []
            for view in (first, second):
                order = torch.randperm(len(view), device=view.device)
                made.append(encode(keys, view[order])[order.argsort()])
        same_video = videos[:, None] == owners
        losses = []
        for query, key in zip(queries, reversed(made), strict=True):
            positive = (query * key).sum(dim=1, keepdim=True).float() / temperature
            negatives = ((query @ queue.T).float() / temperature).masked_fill(same_video, -torch.inf)
            losses.append(-logsigmoid(positive - negatives.logsumexp(dim=1, keepdim=True)).mean())
        new = torch.cat(made)
        rows = (pointer + torch.arange(len(new), device=new.device)) % len(queue)
        queue = queue.index_copy(0, rows, new.to(queue.dtype))  # not in place: backward needs the old one
        owners = owners.index_copy(0, rows, videos.repeat(2))
        pointer = (pointer + len(new)) % len(queue)
        return torch.stack(losses).mean()

    return loss


def vcop(method: VCOP) -> Loss:
    """All clips in one pass, all pairs of them, cross-entropy over the orders."""
    backbone, head, number = method.backbone, method.head, method.num_clips
    orders = torch.tensor(list(permutations(range(number))))
    pairs = list(combinations(range(number), 2))

    def loss(clips: Tensor, videos: Tensor, step: int) -> Tensor:
        labels = torch.randint(len(orders), (len(clips),), device=clips.device)
        shuffled = clips[torch.arange(len(clips), device=clips.device)[:, None], orders.to(clips.device)[labels]]
        features = backbone(shuffled.flatten(0, 1)).unflatten(0, (len(clips), number))
        compared = [head.pair(torch.cat([features[:, i], features[:, j]], dim=1)) for i, j in pairs]
        return cross_entropy(head.classifier(torch.cat(compared, dim=1)), labels)

    return loss


def cvrl(method: CVRL) -> Loss:
    """Both views in one pass, NT-Xent over the batch."""
    network, temperature, weight = nn.Sequential(method.backbone, method.projector), method.temperature, method.weight

    def loss(clips: Tensor, videos: Tensor, step: int) -> Tensor:
        embeddings = normalize(network(clips.transpose(0, 1).flatten(0, 1)), dim=1)
        logits = (embeddings @ embeddings.T).float() / temperature
        logits = logits.masked_fill(torch.eye(len(logits), dtype=torch.bool, device=logits.device), -torch.inf)
        return weight * cross_entropy(logits, torch.arange(len(logits), device=logits.device).roll(len(clips)))

    return loss


LOSSES: Mapping[type, Callable[[Any], Loss]] = {MoCo: moco, VCOP: vcop, CVRL: cvrl}
