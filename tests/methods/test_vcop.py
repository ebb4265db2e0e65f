"""Clip order prediction: the order is told from what is presented, and can't be told where there is nothing to tell."""

import itertools
import math

import pytest
import torch

from ssl_video.data.batch import ClipBatch
from ssl_video.methods.vcop import VCOP
from ssl_video.utils.errors import InputError
from support.methods import attach, build_method, random_batch


def test_untrained_loss_is_about_the_logarithm_of_the_number_of_orders() -> None:
    method, config = build_method("vcop")
    loss = method.losses(random_batch(config, batch_size=16))["order"]
    assert loss.item() == pytest.approx(math.log(6), abs=0.3)


def test_accuracy_is_observed_beside_the_loss() -> None:
    method, config = build_method("vcop")
    method.losses(random_batch(config))
    assert 0 <= method.observed["accuracy"] <= 1


@pytest.mark.parametrize(("clips", "orders"), [(2, 2), (4, 24)])
def test_other_numbers_of_clips(clips: int, orders: int) -> None:
    method, config = build_method("vcop", f"method.num_clips={clips}", f"sampler.num_views={clips}")
    assert isinstance(method, VCOP)
    assert method.predict(random_batch(config).clips).shape == (4, orders)


@pytest.mark.parametrize("clips", [1, 6])
def test_one_or_six_clips_are_refused(clips: int) -> None:
    with pytest.raises(InputError, match=f"num_clips={clips} must be 2 to 5"):
        build_method("vcop", f"method.num_clips={clips}")


def test_sampler_must_give_as_many_clips_as_are_ordered() -> None:
    method, _ = build_method("vcop")
    with pytest.raises(InputError, match=r"sampler.num_views=2.*num_clips=3.*sampler.num_views=3"):
        method.check_batch(num_views=2, num_frames=8)


def translating_and_growing(videos: int, generator: torch.Generator, *, size: int = 24) -> torch.Tensor:
    """Generator A of the order methods' proofs: a bright disc that drifts and grows on noise, ``[B,3,3,T,H,W]``."""
    times = torch.arange(3 * 4 + 2 * 2).float()  # three clips of 4 frames with gaps of 2
    heading = 2 * math.pi * torch.rand(videos, 1, generator=generator)
    start = 6 + 4 * torch.rand(videos, 2, 1, generator=generator)
    x = start[:, 0] + 0.6 * times * heading.cos().abs()
    y = start[:, 1] + 0.6 * times * heading.sin().abs()
    radius = 2.0 + 0.25 * times
    grid = torch.arange(size).float()
    squared = (grid - x[..., None, None]) ** 2 + (grid[:, None] - y[..., None, None]) ** 2
    frames = torch.sigmoid(radius[None, :, None, None] - squared.sqrt())
    frames = frames + 0.1 * torch.randn(videos, 1, size, size, generator=generator)
    return _clips(frames)


def still_with_noise(videos: int, generator: torch.Generator, *, size: int = 24) -> torch.Tensor:
    """Generator C: one picture per video and independent noise on every frame; nothing tells the order."""
    picture = torch.randn(videos, 1, size, size, generator=generator)
    return _clips(picture + 0.3 * torch.randn(videos, 16, size, size, generator=generator))


def _clips(frames: torch.Tensor) -> torch.Tensor:
    starts = (0, 6, 12)
    clips = torch.stack([frames[:, start : start + 4] for start in starts], dim=1)  # [B,V,T,H,W]
    return clips.unsqueeze(2).expand(-1, -1, 3, -1, -1, -1).contiguous()


def _batch(clips: torch.Tensor) -> ClipBatch:
    videos = len(clips)
    return ClipBatch(
        clips,
        torch.zeros(videos, 3, clips.shape[3], dtype=torch.int64),
        torch.full((videos,), -1),
        torch.arange(videos),
        torch.arange(videos),
        torch.arange(videos),
    )


def held_out_accuracy(generate: object, *, steps: int, tuples: int = 2000) -> float:
    """Trains clip order prediction for some steps and asks it about videos it has not seen, with drawn orders."""
    method, _ = build_method("vcop", total_steps=steps)
    assert isinstance(method, VCOP)
    optimizer = torch.optim.Adam(method.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        attach(method, global_step=step, total_steps=steps)
        loss = method.losses(_batch(generate(24, generator)))["order"]  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    method.eval()
    orders = torch.tensor(list(itertools.permutations(range(3))))
    hits = 0
    with torch.inference_mode():
        for _ in range(tuples // 250):
            clips = generate(250, generator)  # type: ignore[operator]
            labels = torch.randint(6, (250,), generator=generator)
            presented = clips[torch.arange(250)[:, None], orders[labels]]
            hits += int((method.predict(presented).argmax(dim=1) == labels).sum())
    return hits / tuples


@pytest.mark.slow
def test_order_is_learnt_where_it_can_be_told() -> None:
    assert held_out_accuracy(translating_and_growing, steps=150) >= 0.95


@pytest.mark.slow
def test_order_stays_at_chance_where_it_cannot_be_told() -> None:
    """Control C with the same code, steps and sizes: within three deviations of 1/6 on 2,000 held-out tuples."""
    deviation = math.sqrt(1 / 6 * 5 / 6 / 2000)
    assert abs(held_out_accuracy(still_with_noise, steps=150) - 1 / 6) <= 3 * deviation
