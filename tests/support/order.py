"""For methods that ask for an order: batches whose pixels tell video, view and frame, and training on made videos."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_video.backbones.base import Backbone
from ssl_video.data.batch import ClipBatch
from ssl_video.data.solvable_videos import Generator, render
from ssl_video.methods.base import SSLMethod
from support.methods import attach

Times = Callable[[np.random.Generator], np.ndarray]  # draws the times [V,T] of one video


class Corners(Backbone):
    """Features of a clip: its pixels at one corner, all channels and frames, as they came; keeps what it was given."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []

    def feature_map(self, clips: Tensor) -> Tensor:
        self.seen.append(clips)
        return self.scale * clips[..., :1, :1].flatten(1)[:, : self.feature_dim, None, None, None]


def batch_of(clips: Tensor) -> ClipBatch:
    """Clips ``[B,V,C,T,H,W]`` as a batch."""
    videos, views, _, frames = clips.shape[:4]
    return ClipBatch(
        clips=clips,
        indices=torch.arange(frames).expand(videos, views, frames),
        labels=torch.full((videos,), -1),
        rows=torch.arange(videos),
        videos=torch.arange(videos),
        positions=torch.arange(videos),
    )


def coded_batch(videos: int, views: int, frames: int) -> ClipBatch:
    """Every pixel of a frame is 100 x video + 10 x view + frame."""
    code = 100 * torch.arange(videos)[:, None, None] + 10 * torch.arange(views)[:, None] + torch.arange(frames)
    return batch_of(code[:, :, None, :, None, None].expand(-1, -1, 3, -1, 4, 4).float().contiguous())


def make(method: type[SSLMethod[Any]], backbone: Backbone, **settings: Any) -> SSLMethod[Any]:
    """A method with a plain optimizer, attached to a stand-in trainer."""
    torch.manual_seed(0)
    made = method(
        backbone=backbone,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
        scheduler=lambda optimizer, **steps: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        **settings,
    )
    attach(made)
    return made


class Differences(Backbone):
    """A quick network for frames (clips of one frame) or for the differences of a clip's neighbouring frames."""

    def __init__(self, num_frames: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.feature_dim = 64
        layers: list[torch.nn.Module] = []
        for before, after in [(3 * max(1, num_frames - 1), 16), (16, 32), (32, 32)]:
            layers += [torch.nn.Conv2d(before, after, 3, 2, 1), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(32 * 4 * 4, 64), torch.nn.ReLU())

    def feature_map(self, clips: Tensor) -> Tensor:
        images = clips.diff(dim=2) if clips.shape[2] > 1 else clips
        features: Tensor = self.layers(images.flatten(1, 2))
        return features[..., None, None, None]


def made_videos(generator: Generator, times: Times, *, videos: int, rng: np.random.Generator) -> ClipBatch:
    """Videos of 32 pixels at drawn times, pixels from -2 to 2."""
    shown = np.stack([render(generator, times(rng), rng=rng) for _ in range(videos)])
    return batch_of((torch.from_numpy(shown).permute(0, 1, 5, 2, 3, 4).float() / 255 - 0.5) * 4)


def train(method: SSLMethod[Any], generator: Generator, times: Times, *, steps: int, videos: int = 32) -> None:
    """Trains on new videos in every step."""
    optimizer = torch.optim.Adam(method.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    rng = np.random.default_rng(1)
    for step in range(steps):
        attach(method, global_step=step, total_steps=steps)
        torch.manual_seed(step)
        loss = torch.stack(list(method.losses(made_videos(generator, times, videos=videos, rng=rng)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()


@torch.no_grad()
def ask(method: Any, generator: Generator, times: Times, *, questions: int = 2000) -> tuple[Tensor, Tensor]:
    """Logits ``[Q, classes]`` and labels ``[Q]`` on videos that it was not trained on."""
    method.eval()
    rng = np.random.default_rng(2)
    torch.manual_seed(10**6)
    batches = (made_videos(generator, times, videos=200, rng=rng) for _ in range(questions // 200))
    logits, labels = zip(*(method.questions(batch) for batch in batches), strict=True)
    return torch.cat(logits), torch.cat(labels)


def accuracy(method: Any, generator: Generator, times: Times, *, questions: int = 2000) -> float:
    """Share of right answers on videos that it was not trained on."""
    logits, labels = ask(method, generator, times, questions=questions)
    return (logits.argmax(dim=1) == labels).float().mean().item()


def at_chance(share: float, chance: float, questions: int = 2000) -> bool:
    """Within three binomial deviations."""
    return abs(share - chance) <= 3 * math.sqrt(chance * (1 - chance) / questions)
